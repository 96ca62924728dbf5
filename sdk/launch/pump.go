package launch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	"github.com/agentlab/agentlab/sdk/secret"
)

const (
	maxLine     = 64 << 10 // bytes of a line that are looked at
	maxTail     = 64 << 10 // bytes of output kept for a crash report
	maxFields   = 64       // fields taken from one log line
	linesPerSec = 500
	linesBurst  = 2000
	bytesPerSec = 64 << 10 // as logged
	bytesBurst  = 512 << 10
)

// Messages of log entries about what is none itself.
const (
	outputMessage = "plugin output"
	crashMessage  = "plugin crash"
)

// pump takes what a plugin prints: lines of hclog's JSON become log entries,
// all else is logged as it is. Nothing that comes in is trusted.
type pump struct {
	log         hclog.Logger
	lines, size *rate.Limiter

	mu sync.Mutex
	// mu guards:
	tail     []byte // newest output, rendered; up to 2*maxTail
	dropped  int    // lines not logged since the last that was
	panicked bool   // a Go panic was seen: what follows is its stack
	hidden   *secret.Redactor
}

func newPump(log hclog.Logger) *pump {
	return &pump{log: log, lines: rate.NewLimiter(linesPerSec, linesBurst), size: rate.NewLimiter(bytesPerSec, bytesBurst)}
}

// read takes lines until r ends or fails.
func (p *pump) read(r io.Reader) {
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := readLine(br)
		if len(line) > 0 {
			p.line(line)
		}
		if err != nil {
			return
		}
	}
}

// readLine gives the next line, cut at maxLine; the rest of a longer one is
// thrown away.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, more, err := br.ReadLine()
	if err != nil || !more {
		return line, err
	}
	line = append(bytes.Clone(line), " [cut]"...)
	for more && err == nil {
		_, more, err = br.ReadLine()
	}
	return line, err
}

func (p *pump) line(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hidden != nil {
		b = p.hidden.Bytes(b)
	}
	if p.lines.Tokens() < 1 || p.size.Tokens() < 1 { // too much to parse, only to throw it away
		p.keep(hclog.Info, outputMessage, []any{"line", printable(string(bytes.TrimSpace(b)))})
		p.dropped++
		return
	}
	level, message, fields := p.parse(b)
	size := p.keep(level, message, fields)
	if level < p.log.GetLevel() {
		return
	}
	if !p.lines.Allow() || !p.size.AllowN(time.Now(), size) {
		p.dropped++
		return
	}
	if p.dropped > 0 {
		p.log.Warn("plugin log lines dropped", "count", p.dropped)
		p.dropped = 0
	}
	p.log.Log(level, message, fields...)
}

// parse reads one line. The types of all JSON values are checked: a plugin may
// print anything.
func (p *pump) parse(b []byte) (hclog.Level, string, []any) {
	if level, message, fields, ok := parseEntry(b); ok {
		return level, message, fields
	}
	text := printable(string(bytes.TrimSpace(b)))
	if strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ") {
		p.panicked = true
	}
	if p.panicked {
		return hclog.Error, crashMessage, []any{"line", text}
	}
	return hclog.Info, outputMessage, []any{"line", text}
}

func parseEntry(b []byte) (level hclog.Level, message string, fields []any, ok bool) {
	if len(b) == 0 || b[0] != '{' {
		return 0, "", nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var entry map[string]any
	if err := dec.Decode(&entry); err != nil {
		return 0, "", nil, false
	}
	message, isText := entry["@message"].(string)
	levelName, _ := entry["@level"].(string)
	level = hclog.LevelFromString(levelName)
	if !isText || level == hclog.NoLevel || level == hclog.Off {
		return 0, "", nil, false
	}
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		if strings.HasPrefix(key, "@") || len(fields) >= 2*maxFields {
			continue
		}
		fields = append(fields, printable(key), fieldText(entry[key]))
	}
	return level, printable(message), fields, true
}

func fieldText(v any) string {
	switch v := v.(type) {
	case string:
		return printable(v)
	case json.Number:
		return v.String()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return printable(string(b)) // JSON leaves format characters as they are
}

// printable quotes text that could move a terminal's cursor, forge a line or
// show in another order than it has (format characters such as U+202E).
// Line breaks inside a field are kept: hclog indents them, stacks need them.
func printable(s string) string {
	odd := strings.ContainsFunc(s, func(r rune) bool {
		return r == unicode.ReplacementChar || !unicode.IsPrint(r) && r != '\n' && r != '\t'
	})
	if odd {
		return strconv.Quote(s)
	}
	return s
}

// keep adds the line to the tail and gives its length. Called with mu held.
func (p *pump) keep(level hclog.Level, message string, fields []any) int {
	var line strings.Builder
	// A log entry of the plugin may have these words too, and no fields.
	if (message == outputMessage || message == crashMessage) && len(fields) == 2 {
		fmt.Fprintf(&line, "%s\n", fields[1])
	} else {
		fmt.Fprintf(&line, "%s: %s", level, message)
		for i := 0; i+1 < len(fields); i += 2 {
			fmt.Fprintf(&line, " %s=%s", fields[i], fields[i+1])
		}
		line.WriteByte('\n')
	}
	p.tail = append(p.tail, line.String()...)
	if len(p.tail) > 2*maxTail {
		p.tail = append(p.tail[:0], p.tail[len(p.tail)-maxTail:]...)
	}
	return line.Len()
}

// last gives the newest output, at most maxTail bytes.
func (p *pump) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.tail[max(0, len(p.tail)-maxTail):])
}

// lines is a writer that feeds whole lines to a pump. Not for concurrent use.
type lines struct {
	pump *pump
	rest []byte
}

func (w *lines) Write(b []byte) (int, error) {
	for part := range bytes.Lines(b) {
		if len(w.rest) < maxLine {
			w.rest = append(w.rest, part[:min(len(part), maxLine)]...)
		}
		if part[len(part)-1] == '\n' {
			w.pump.line(w.rest)
			w.rest = w.rest[:0]
		}
	}
	return len(b), nil
}
