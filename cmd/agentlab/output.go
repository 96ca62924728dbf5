package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/guestapi"
)

// show prints v as JSON when that was asked for, else calls people.
func show(env *cli.Env, v any, people func(w io.Writer)) error {
	if env.Global.JSON {
		return writeJSON(env.Out, v, "  ")
	}
	people(env.Out)
	return nil
}

// writeJSON writes one value that is safe on a terminal and, without indent,
// on one line.
func writeJSON(w io.Writer, v any, indent string) error {
	enc := json.NewEncoder(plainJSON{w})
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	return enc.Encode(v)
}

// next is how a further command is written, with the daemon that was asked for.
func next(env *cli.Env, words ...string) string {
	g := env.Global
	line := []string{"agentlab"}
	for _, kv := range [][2]string{{"--socket", g.Socket}, {"--endpoint", g.Endpoint}, {"--config", g.Config}} {
		if kv[1] != "" {
			line = append(line, kv[0], kv[1])
		}
	}
	return strings.Join(append(line, words...), " ")
}

// listed wraps a listing for JSON; an empty one is [] and not null.
func listed[T any](name string, rows []T) map[string]any {
	return map[string]any{name: append([]T{}, rows...)}
}

// listing declares what listed prints.
func listing[T any](name string) cli.Answer {
	rows := reflect.StructField{Name: "Rows", Type: reflect.TypeFor[[]T](), Tag: reflect.StructTag(`json:"` + name + `"`)}
	return cli.Answer{Name: name, Type: reflect.StructOf([]reflect.StructField{rows})}
}

// table prints aligned columns.
func table(w io.Writer, head []string, rows [][]string) {
	wide := make([]int, len(head))
	rows = append([][]string{head}, rows...)
	for _, r := range rows {
		for i := range r {
			if r[i] = oneLine(r[i]); r[i] == "" {
				r[i] = "-"
			}
			wide[i] = max(wide[i], utf8.RuneCountInString(r[i]))
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
			if head[i] == "STATE" {
				cell = stateText(w, cell)
			}
			if line.WriteString(cell); i < len(r)-1 {
				line.WriteString(pad)
			}
		}
		fmt.Fprintln(w, line.String())
	}
}

// fields prints "name: value" lines and leaves out empty values.
func fields(w io.Writer, pairs ...string) {
	wide := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			wide = max(wide, len(pairs[i]))
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, value := pairs[i], oneLine(pairs[i+1])
		if value == "" {
			continue
		}
		if name == "state" {
			value = stateText(w, value)
		}
		fmt.Fprintf(w, "%-*s  %s\n", wide+1, name+":", value)
	}
}

func bytesText(n int64) string { return guestapi.SizeText(n) }

// age is a duration as people say it: 42s, 7m, 3h, 5d. Clocks that disagree
// make none below zero.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// span is a length of time as it would be written for a flag: 1h30m.
func span(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = strings.TrimSuffix(s, zero[1:])
		}
	}
	return s
}

func timeText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
