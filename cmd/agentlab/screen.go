package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// isTerminal reports whether a person looks at w.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// harmful are characters that do something to a terminal or to the order in
// which text is read.
func harmful(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r <= 0x9f:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f:
		return true
	}
	return false
}

// oneLine makes text from the outside safe for a terminal and a table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case harmful(r):
			return -1
		}
		return r
	}, s)
}

// lines is oneLine for text that may have several.
func lines(s string) string {
	parts := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range parts {
		parts[i] = oneLine(parts[i])
	}
	return strings.Join(parts, "\n")
}

// plainJSON writes harmful characters as JSON escapes. Outside of strings JSON
// has none but line ends.
type plainJSON struct{ w io.Writer }

func (p plainJSON) Write(b []byte) (int, error) {
	var out bytes.Buffer
	for _, r := range string(b) {
		if r != '\n' && harmful(r) {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	if _, err := p.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// forPeople returns w for agent output: as it is where a program reads it, and
// harmless where it is a terminal.
func forPeople(w io.Writer) io.Writer {
	if isTerminal(w) {
		return &screen{w: w}
	}
	return w
}

// screen lets text, line ends, tabs and colours through to a terminal and drops
// whatever else could move its cursor, change its settings or make it answer.
type screen struct {
	w      io.Writer
	state  escape
	params []byte // of the sequence being read
	rest   []byte // of a character cut by the end of a Write
}

// escape is where in a control sequence the reading stands.
type escape int

const (
	inText escape = iota
	afterEsc
	inCSI    // ESC [ … letter
	inString // ESC ] … BEL, and others of this kind
	inStringEsc
)

// Write never keeps more than one sequence's beginning.
func (s *screen) Write(p []byte) (int, error) {
	data := append(s.rest, p...)
	s.rest = nil
	var out bytes.Buffer
	for len(data) > 0 {
		if !utf8.FullRune(data) {
			s.rest = bytes.Clone(data)
			break
		}
		r, n := utf8.DecodeRune(data)
		data = data[n:]
		s.take(r, &out)
	}
	if _, err := s.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *screen) take(r rune, out *bytes.Buffer) {
	if r == '\n' { // ends every sequence, so that an open one cannot swallow the rest
		s.state = inText
	}
	switch s.state {
	case inText:
		s.text(r, out)
	case afterEsc:
		s.begin(r)
	case inCSI:
		s.csi(r, out)
	case inString:
		switch r {
		case 0x1b:
			s.state = inStringEsc
		case 0x07, 0x9c:
			s.state = inText
		}
	case inStringEsc: // ends the string, as its own end or as another's beginning
		s.begin(r)
	}
}

func (s *screen) text(r rune, out *bytes.Buffer) {
	switch {
	case r == 0x1b:
		s.state = afterEsc
	case r == 0x9b:
		s.state, s.params = inCSI, s.params[:0]
	case r == 0x90 || r == 0x98 || r >= 0x9d && r <= 0x9f:
		s.state = inString
	case r == '\n' || r == '\t' || r == '\r' || !harmful(r):
		out.WriteRune(r)
	}
}

func (s *screen) begin(r rune) {
	switch {
	case r == '[':
		s.state, s.params = inCSI, s.params[:0]
	case strings.ContainsRune("]PX^_", r):
		s.state = inString
	case r == 0x1b, r >= ' ' && r <= '/': // more to come, as in ESC ( B
		s.state = afterEsc
	default:
		s.state = inText
	}
}

// csi passes a finished sequence on when it is a colour.
func (s *screen) csi(r rune, out *bytes.Buffer) {
	const longest = 64
	switch {
	case r >= '@' && r <= '~':
		s.state = inText
		if r == 'm' && len(s.params) <= longest && !bytes.ContainsFunc(s.params, notColour) {
			fmt.Fprintf(out, "\x1b[%sm", s.params)
		}
	case r >= ' ' && r <= '?':
		if len(s.params) <= longest {
			s.params = append(s.params, byte(r))
		}
	case r == 0x1b:
		s.state = afterEsc
	default:
		s.state = inText
	}
}

func notColour(r rune) bool { return (r < '0' || r > '9') && r != ';' && r != ':' }
