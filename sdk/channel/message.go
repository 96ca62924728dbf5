package channel

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode"

	"github.com/agentlab/agentlab/sdk/fault"
)

// version is of the wire: hosts and guests of different ones do not talk.
const version = 2

// Bounds of the wire.
const (
	chunkBytes     = 32 << 10 // of a program's input or output in one line
	window         = 16       // chunks that one side sends before the other took any
	maxGuestLine   = 128 << 10
	maxHostLine    = 2 << 20 // an identity in base64 fits
	maxIdentity    = 1 << 20
	maxCalls       = 32 // of a session at a time
	maxFaultLength = 2 << 10
)

// kind says what a message is.
type kind string

// What the host sends, what the guest sends, and what either does.
const (
	kindOpen     kind = "open" // begin a session
	kindState    kind = "state"
	kindReady    kind = "ready"
	kindAssume   kind = "assume"
	kindGo       kind = "go"
	kindRehearse kind = "rehearse"
	kindBusy     kind = "busy"
	kindExec     kind = "exec"
	kindCancel   kind = "cancel"
	kindStdin    kind = "stdin" // without data: the end of it

	kindStarted kind = "started" // the guest's program is new; belongs to no session
	kindOpened  kind = "opened"
	kindAnswer  kind = "answer"
	kindStdout  kind = "stdout"
	kindStderr  kind = "stderr"

	kindTook kind = "took" // one chunk was taken off the sender's hands
)

// message is one line.
type message struct {
	Session string          `json:"s,omitempty"`
	Call    uint64          `json:"c,omitempty"`
	Kind    kind            `json:"k"`
	Version int             `json:"v,omitempty"`
	Body    json.RawMessage `json:"b,omitempty"`
	Data    []byte          `json:"d,omitempty"`
	Fault   *failure        `json:"e,omitempty"`
}

// failure is a fault.Error on the wire.
type failure struct {
	Class   fault.Class `json:"class"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
}

func failureOf(err error) *failure {
	return &failure{Class: fault.ClassOf(err), Message: cut(err.Error()), Hint: cut(fault.HintOf(err))}
}

// fault makes of what a guest says an error that can be shown: of a known
// class, bounded, and without control characters.
func (f *failure) fault() error {
	class := fault.Internal
	for _, known := range fault.Classes() {
		if f.Class == known {
			class = known
		}
	}
	err := fault.New(class, "the guest says: %s", printable(f.Message))
	if f.Hint != "" {
		err = err.WithHint("%s", printable(f.Hint))
	}
	return err
}

func cut(s string) string {
	if len(s) > maxFaultLength {
		s = s[:maxFaultLength]
	}
	return s
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, cut(strings.ToValidUTF8(s, "?")))
}

// encode gives the line of m. The empty line before it ends what another sender
// may have left half said.
func encode(m message) ([]byte, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return append(append([]byte{'\n'}, raw...), '\n'), nil
}

// errLongLine is of a line that no honest sender writes.
var errLongLine = errors.New("line is too long")

// lines reads messages.
type lines struct{ r *bufio.Reader }

func newLines(r io.Reader, most int) lines { return lines{bufio.NewReaderSize(r, most)} }

// next gives the next line that is a message, and passes over all others. A
// line longer than the buffer is errLongLine; what follows is read as another.
func (l lines) next() (message, error) {
	for {
		line, err := l.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return message{}, errLongLine
		}
		if err != nil {
			return message{}, err
		}
		var m message
		if len(line) > 1 && json.Unmarshal(line, &m) == nil && m.Kind != "" {
			return m, nil
		}
	}
}
