package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
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
// Colours last to the end of their line, and what others write to the terminal
// between two Writes has none of them.
type screen struct {
	w       io.Writer
	state   escape
	params  []byte // of the sequence being read
	rest    []byte // of a character cut by the end of a Write
	colours []byte // sequences in force
}

// colourless ends all colours.
const colourless = "\x1b[0m"

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
	out.Write(s.colours)
	for len(data) > 0 {
		if !utf8.FullRune(data) {
			s.rest = bytes.Clone(data)
			break
		}
		r, n := utf8.DecodeRune(data)
		data = data[n:]
		s.take(r, &out)
	}
	if len(s.colours) > 0 {
		out.WriteString(colourless)
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
	case r == '\n' && len(s.colours) > 0:
		out.WriteString(colourless + "\n")
		s.colours = nil
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
			s.colour(string(s.params), out)
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

// colour passes on what is harmless of a colour sequence.
func (s *screen) colour(params string, out *bytes.Buffer) {
	const most = 1024 // bytes of colours in one line; further ones are not shown
	params, ok := harmless(params)
	sequence := "\x1b[" + params + "m"
	switch {
	case !ok:
		return
	case strings.Trim(params, "0;") == "":
		s.colours = nil
	case len(s.colours) > most:
		return
	default:
		s.colours = append(s.colours, sequence...)
	}
	out.WriteString(sequence)
}

// harmless leaves out of a colour sequence what hides text or changes the font.
// One whose meaning depends on the terminal is not ok.
func harmless(params string) (kept string, ok bool) {
	fields := strings.Split(params, ";")
	var out []string
	for i := 0; i < len(fields); i++ {
		first, _, whole := strings.Cut(fields[i], ":")
		n, _ := strconv.Atoi(first) // nothing is 0
		end := i + 1
		if (n == 38 || n == 48) && !whole { // the colour is in the next fields
			if end == len(fields) {
				return "", false
			}
			end += map[string]int{"5": 2, "2": 4}[fields[end]]
			if end == i+1 || end > len(fields) {
				return "", false
			}
		}
		if n <= 7 || n == 9 || n >= 21 && n <= 55 || n >= 90 && n <= 107 {
			out = append(out, fields[i:end]...)
		} else if n == 58 { // a colour where it is known, others where not
			return "", false
		}
		i = end - 1
	}
	return strings.Join(out, ";"), len(out) > 0
}
