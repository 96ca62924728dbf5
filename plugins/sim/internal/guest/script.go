package guest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// action is one word of the task.
type action struct {
	word string
	arg  string
	n    int64         // of log and artifact: bytes; of exit: the code
	at   time.Duration // since the agent began: the sum of the sleeps before it
}

// parseTask reads the words that begin with "sim:"; the rest is for people.
func parseTask(task string) ([]action, error) {
	var out []action
	var at time.Duration
	for _, field := range strings.Fields(task) {
		rest, ok := strings.CutPrefix(field, "sim:")
		if !ok {
			continue
		}
		a := action{at: at}
		a.word, a.arg, _ = strings.Cut(rest, "=")
		var err error
		switch a.word {
		case "sleep":
			var d time.Duration
			d, err = time.ParseDuration(a.arg)
			at += d
			a.at = at
		case "log":
			a.n, err = parseSize(a.arg)
		case "exit":
			a.n, err = strconv.ParseInt(a.arg, 10, 32)
		case "artifact":
			var size string
			a.arg, size, _ = strings.Cut(a.arg, ":")
			a.n, err = parseSize(size)
		case "beat", "print", "leak", "hang", "stuck", "silent", "poweroff", "reboot":
		default:
			err = fmt.Errorf("not a word of the simulated agent")
		}
		if err != nil {
			return nil, fmt.Errorf("sim:%s: %w", rest, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// parseSize reads "12", "4KB", "1MB" and "1GB".
func parseSize(s string) (int64, error) {
	factor := int64(1)
	for suffix, f := range map[string]int64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			s, factor = digits, f
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 40)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("not a size")
	}
	return n * factor, nil
}

// filler is the same text every time it is asked for.
func filler(n int64) []byte {
	const line = "the simulated agent thinks about it and writes this line of 64\n\n"
	return []byte(strings.Repeat(line, int(n)/len(line)+1))[:n]
}
