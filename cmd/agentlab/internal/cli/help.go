package cli

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// usage is the one line that shows how a command is written.
func (a *App) usage(c Command) string {
	parts := []string{a.title(c)}
	if c.Run == nil {
		return parts[0] + " COMMAND [flags]"
	}
	if c.Flags != nil {
		parts = append(parts, "[flags]")
	}
	if c.Args != "" {
		parts = append(parts, c.Args)
	}
	return strings.Join(parts, " ")
}

// about is what the help says in sentences.
func (a *App) about(c Command) string {
	switch {
	case c.Name == "":
		return a.About
	case c.Help != "":
		return strings.TrimSpace(c.Help)
	case c.Synopsis != "":
		return strings.ToUpper(c.Synopsis[:1]) + c.Synopsis[1:] + "."
	}
	return ""
}

// help prints all there is to say about a command or a group.
func (a *App) help(w io.Writer, c Command) {
	fmt.Fprintf(w, "Usage: %s\n\n%s\n", a.usage(c), a.about(c))
	section(w, "Commands", a.below(c))
	section(w, "Flags", flagRows(c.Flags))
	section(w, "Flags of every command", flagRows(new(Global).declare))
}

// below lists the commands of a group, and for the program those of one word.
func (a *App) below(group Command) [][2]string {
	var rows [][2]string
	for _, c := range a.Commands {
		next, ok := strings.CutPrefix(c.Name, group.Name)
		if group.Name != "" {
			next, ok = strings.CutPrefix(next, " ")
		}
		if !ok || c.Hidden || next == "" || (group.Name == "" && strings.Contains(next, " ")) {
			continue
		}
		rows = append(rows, [2]string{c.Name, c.Synopsis})
	}
	slices.SortFunc(rows, func(x, y [2]string) int { return strings.Compare(x[0], y[0]) })
	return rows
}

func flagRows(declare func(*flag.FlagSet)) [][2]string {
	if declare == nil {
		return nil
	}
	fs := newFlagSet()
	declare(fs)
	var rows [][2]string
	fs.VisitAll(func(f *flag.Flag) {
		kind, text := flag.UnquoteUsage(f)
		if isBool(f) {
			kind = ""
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			text += " (default: " + f.DefValue + ")"
		}
		rows = append(rows, [2]string{strings.TrimSpace(dashed(f.Name) + " " + strings.ToUpper(kind)), text})
	})
	return rows
}

func section(w io.Writer, title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	wide := 0
	for _, r := range rows {
		wide = max(wide, len(r[0]))
	}
	for _, r := range rows {
		fmt.Fprintf(w, "  %-*s  %s\n", wide, r[0], r[1])
	}
}
