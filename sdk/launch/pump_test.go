package launch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/secret"
)

func newTestPump() (*pump, *bytes.Buffer) {
	var out bytes.Buffer
	return newPump(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info, JSONFormat: true})), &out
}

func TestFloodIsBounded(t *testing.T) {
	p, out := newTestPump()
	var in strings.Builder
	for i := range 20 * linesBurst {
		fmt.Fprintf(&in, "line %d %s\n", i, strings.Repeat("x", 20))
	}
	p.read(strings.NewReader(in.String()))
	logged := strings.Count(out.String(), "\n")
	if logged < linesBurst || logged > 2*linesBurst {
		t.Errorf("%d lines were logged of %d", logged, 20*linesBurst)
	}
	if tail := p.last(); len(tail) > maxTail || !strings.Contains(tail, fmt.Sprintf("line %d ", 20*linesBurst-1)) {
		t.Errorf("tail of %d bytes misses the last line", len(tail))
	}
	p.lines.SetLimit(1e9)
	p.line([]byte("quiet again"))
	if !strings.Contains(out.String(), "plugin log lines dropped") {
		t.Error("nothing says that lines were dropped")
	}
}

// TestBigLinesAreLimited: few lines can be much.
func TestBigLinesAreLimited(t *testing.T) {
	p, out := newTestPump()
	big := strings.Repeat("\x01", maxLine/2) + "\n" // four bytes each when quoted
	p.read(strings.NewReader(strings.Repeat(big, 100)))
	if out.Len() == 0 || out.Len() > 3*bytesBurst {
		t.Errorf("%d bytes were logged of %d", out.Len(), 100*len(big))
	}
}

func TestLongLineIsCutOnce(t *testing.T) {
	p, out := newTestPump()
	p.read(strings.NewReader(strings.Repeat("y", 10<<20) + "\nnext\n" + strings.Repeat("z", 3*maxLine)))
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d log lines, want 3", n)
	}
	if out.Len() > 4*maxLine || !strings.Contains(out.String(), "[cut]") || !strings.Contains(out.String(), `"next"`) {
		t.Errorf("log of %d bytes: %.200s", out.Len(), out)
	}
}

func TestPanicIsAnError(t *testing.T) {
	p, out := newTestPump()
	p.read(strings.NewReader("hello\npanic: nil map\n\ngoroutine 1 [running]:\n"))
	if n := strings.Count(out.String(), `"@level":"error"`); n != 2 {
		t.Errorf("%d error lines:\n%s", n, out)
	}
	if !strings.Contains(p.last(), "panic: nil map\ngoroutine 1") {
		t.Errorf("tail %q", p.last())
	}
}

func TestEntryBelowTheLevelIsKeptForACrash(t *testing.T) {
	p, out := newTestPump()
	p.read(strings.NewReader(`{"@level":"debug","@message":"opened","file":"/x","n":9007199254740993}` + "\n"))
	if out.Len() != 0 || p.last() != "debug: opened file=/x n=9007199254740993\n" {
		t.Errorf("logged %q, kept %q", out, p.last())
	}
}

func TestWriterJoinsPieces(t *testing.T) {
	p, _ := newTestPump()
	w := &lines{pump: p}
	for _, piece := range []string{"one ", "line\ntwo\nth", "ree\n"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := p.last(); got != "one line\ntwo\nthree\n" {
		t.Errorf("got %q", got)
	}
}

// What is not printable is quoted wherever it stands in a line.
func TestOddCharactersAreQuoted(t *testing.T) {
	for _, odd := range []string{"\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\u00ad", "\U000e0041", "\x1b", "\u009b", "\r"} {
		p, out := newTestPump()
		text, err := json.Marshal("a" + odd + "b")
		if err != nil {
			t.Fatal(err)
		}
		p.line([]byte("a" + odd + "b"))
		for _, entry := range []string{
			`{"@level":"info","@message":%s}`, `{"@level":"info","@message":"m",%s:1}`,
			`{"@level":"info","@message":"m","k":%s}`, `{"@level":"info","@message":"m","k":[%s]}`, `{"@level":"info","@message":"m","k":{%s:1}}`,
		} {
			p.line(fmt.Appendf(nil, entry, text))
		}
		if strings.Contains(out.String()+p.last(), odd) {
			t.Errorf("%q is in the log or the tail:\n%s\n%s", odd, out, p.last())
		}
	}
	p, _ := newTestPump()
	if p.line([]byte("naïve 日本 é\tx")); p.last() != "naïve 日本 é\tx\n" {
		t.Errorf("plain text became %q", p.last())
	}
}

func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"@message":1}`))
	f.Add([]byte(`{"@level":"info","@message":"m","k":{"a":[1,null,"\u001b"]}}`))
	f.Add([]byte("\x1b[2J\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, out := newTestPump()
		p.read(bytes.NewReader(in))
		for line := range bytes.Lines(out.Bytes()) {
			if !json.Valid(line) {
				t.Errorf("log line %q", line)
			}
		}
		if strings.ContainsRune(p.last(), 0x1b) || !utf8.ValidString(p.last()) {
			t.Errorf("tail %q", p.last())
		}
	})
}

// A plugin may use the words that stand for its plain output.
func TestEntryWithOurOwnWords(t *testing.T) {
	p, _ := newTestPump()
	for _, message := range []string{"plugin output", "plugin crash"} {
		p.line([]byte(`{"@level":"info","@message":"` + message + `"}`))
		p.line([]byte(`{"@level":"info","@message":"` + message + `","a":"1","b":"2"}`))
	}
	if n := strings.Count(p.last(), "a=1 b=2"); n != 2 {
		t.Errorf("%d entries of 2 in the tail %q", n, p.last())
	}
}

func TestHiddenValuesAreNotLogged(t *testing.T) {
	p, out := newTestPump()
	p.hidden = secret.NewRedactor(secret.New("hunter2-hunter2"), secret.New("two \"words\""))
	p.line([]byte("opened with hunter2-hunter2"))
	p.line([]byte(`{"@level":"warn","@message":"token hunter2-hunter2","again":"hunter2-hunter2","other":"two \"words\""}`))
	if got := out.String() + p.last(); strings.Contains(got, "hunter2") || strings.Contains(got, "words") || strings.Count(got, "[REDACTED]") < 6 {
		t.Errorf("logged and kept: %s", got)
	}
}
