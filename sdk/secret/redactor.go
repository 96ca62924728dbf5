package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// MinLength is the length in bytes below which a value is not looked for:
// redacting "yes" would make a log unreadable and protect nothing.
const MinLength = 6

// Redactor replaces known secret values in text, also where they were encoded
// as base64, alone or amid other text, in a URL, or as a JSON string, and each
// line of a value of several lines (a private key). It is immutable and safe
// for concurrent use.
type Redactor struct {
	needles [][]byte // longest first
}

// NewRedactor knows the given values. Values shorter than MinLength are left.
func NewRedactor(values ...Value) *Redactor {
	seen := map[string]bool{}
	r := &Redactor{}
	add := func(s string) {
		if len(s) >= MinLength && !seen[s] {
			seen[s] = true
			r.needles = append(r.needles, []byte(s))
		}
	}
	for _, v := range values {
		for _, form := range forms(strings.TrimSpace(v.s)) {
			add(form)
		}
	}
	slices.SortFunc(r.needles, func(a, b []byte) int { return len(b) - len(a) })
	return r
}

func forms(s string) []string {
	if s == "" {
		return nil
	}
	out := []string{s, url.QueryEscape(s), url.PathEscape(s)}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		out = append(out, enc.EncodeToString([]byte(s)))
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			out = append(out, inBase64(enc, s, before))
		}
	}
	if j, err := json.Marshal(s); err == nil {
		out = append(out, string(j[1:len(j)-1]))
	}
	if strings.Contains(s, "\n") {
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); len(line) >= 16 && !strings.HasPrefix(line, "-----") {
				out = append(out, line)
			}
		}
	}
	return out
}

// inBase64 is s where it stands amid an encoded text, with that many bytes
// before it more than a multiple of three. Characters at either end that a
// neighbour has bits in as well are left out: they may be any.
func inBase64(enc *base64.Encoding, s string, before int) string {
	text := enc.EncodeToString(append(make([]byte, before), s...))
	return text[(8*before+5)/6 : 8*(before+len(s))/6]
}

// Bytes returns b as a Stream would write it: every known value is replaced by
// Mask, and so is the beginning of one with which b ends. b is not changed.
func (r *Redactor) Bytes(b []byte) []byte {
	s := r.Stream()
	return append(s.Next(b), s.End()...)
}

// String is Bytes for text.
func (r *Redactor) String(s string) string { return string(r.Bytes([]byte(s))) }

// Contains reports whether b holds a known value.
func (r *Redactor) Contains(b []byte) bool {
	return slices.ContainsFunc(r.needles, func(n []byte) bool { return bytes.Contains(b, n) })
}

// Longest is the length in bytes of the longest form that is looked for. A
// stream must be held back by Longest-1 bytes so that a value cut in two by a
// read is still seen.
func (r *Redactor) Longest() int {
	if len(r.needles) == 0 {
		return 0
	}
	return len(r.needles[0])
}
