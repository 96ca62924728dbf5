package secret

import (
	"bytes"
	"slices"
)

// Stream redacts text that arrives in pieces, however it is cut. It holds back
// only bytes that may be the beginning of a secret. It is not safe for
// concurrent use.
type Stream struct {
	r       *Redactor
	held    []byte // not written yet
	covered int    // leading bytes of held that belong to a secret that was already masked
	masking bool   // the last thing written was Mask
}

// Stream starts a stream.
func (r *Redactor) Stream() *Stream { return &Stream{r: r} }

// Next takes a piece and returns what can be written now.
func (s *Stream) Next(piece []byte) []byte {
	s.held = append(s.held, piece...)
	return s.emit(len(s.held) - s.r.pending(s.held))
}

// Held is the number of bytes held back because a secret may begin in them.
func (s *Stream) Held() int { return len(s.held) }

// End returns the rest. What may be the first part of a secret that was cut
// off is masked, if it is long enough to matter.
func (s *Stream) End() []byte {
	if n := s.r.pending(s.held); n >= MinLength {
		s.covered = len(s.held)
	}
	return s.emit(len(s.held))
}

// emit writes the first n held bytes.
func (s *Stream) emit(n int) []byte {
	spans := s.r.spans(s.held)
	if s.covered > 0 {
		spans = append(spans, [2]int{0, s.covered})
	}
	spans = join(spans)
	var out []byte
	at := 0
	for _, span := range spans {
		if span[0] >= n {
			break
		}
		if span[0] > at {
			out = append(out, s.held[at:span[0]]...)
			s.masking = false
		}
		if !s.masking {
			out = append(out, Mask...)
			s.masking = true
		}
		at = min(span[1], n)
	}
	if at < n {
		out = append(out, s.held[at:n]...)
		s.masking = false
	}
	s.covered = 0
	for _, span := range spans {
		if span[0] < n && span[1] > n {
			s.covered = span[1] - n
		}
	}
	s.held = append(s.held[:0], s.held[n:]...)
	return out
}

// pending is the length of the longest end of b with which a secret may begin.
func (r *Redactor) pending(b []byte) int {
	longest := 0
	for _, n := range r.needles {
		for k := min(len(n)-1, len(b)); k > longest; k-- {
			if b[len(b)-k] == n[0] && bytes.HasPrefix(n, b[len(b)-k:]) {
				longest = k
				break
			}
		}
	}
	return longest
}

// spans lists where in b a known value stands, overlapping ones included.
func (r *Redactor) spans(b []byte) [][2]int {
	var out [][2]int
	for _, n := range r.needles {
		for at := 0; ; {
			i := bytes.Index(b[at:], n)
			if i < 0 {
				break
			}
			out = append(out, [2]int{at + i, at + i + len(n)})
			at += i + 1
		}
	}
	return out
}

// join sorts spans and makes one of those that touch.
func join(spans [][2]int) [][2]int {
	slices.SortFunc(spans, func(a, b [2]int) int { return a[0] - b[0] })
	out := spans[:0]
	for _, s := range spans {
		if last := len(out) - 1; last >= 0 && s[0] <= out[last][1] {
			out[last][1] = max(out[last][1], s[1])
		} else {
			out = append(out, s)
		}
	}
	return out
}
