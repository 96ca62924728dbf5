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
	if c.Args != "" {
		parts = append(parts, c.Args)
	}
	if c.Flags != nil {
		parts = append(parts, "[flags]")
	}
	return strings.Join(parts, " ")
}

// help prints all there is to say about a command or a group.
func (a *App) help(w io.Writer, c Command) {
	fmt.Fprintf(w, "Usage: %s\n", a.usage(c))
	if text := c.Help; text != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(text))
	} else if c.Synopsis != "" {
		fmt.Fprintf(w, "\n%s.\n", c.Synopsis)
	}
	if c.Run == nil {
		a.listCommands(w, c.Name)
	}
	if c.Flags != nil {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		c.Flags(fs)
		fmt.Fprint(w, "\nFlags:\n")
		listFlags(w, fs)
	}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	new(Global).declare(fs)
	fmt.Fprint(w, "\nFlags of every command:\n")
	listFlags(w, fs)
}

func (a *App) listCommands(w io.Writer, group string) {
	fmt.Fprint(w, "\nCommands:\n")
	width := 0
	var names []Command
	for _, c := range a.Commands {
		if c.Hidden || c.Name == group || !strings.HasPrefix(c.Name, group) || (group != "" && c.Name[len(group)] != ' ') {
			continue
		}
		if group == "" && strings.Contains(c.Name, " ") {
			continue
		}
		names = append(names, c)
		width = max(width, len(c.Name))
	}
	slices.SortFunc(names, func(x, y Command) int { return strings.Compare(x.Name, y.Name) })
	for _, c := range names {
		fmt.Fprintf(w, "  %-*s  %s\n", width, c.Name, c.Synopsis)
	}
}

func listFlags(w io.Writer, fs *flag.FlagSet) {
	var rows [][2]string
	width := 0
	fs.VisitAll(func(f *flag.Flag) {
		kind, text := flag.UnquoteUsage(f)
		if isBool(f) {
			kind = ""
		}
		head := strings.TrimSpace("--" + f.Name + " " + strings.ToUpper(kind))
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			text += " (default " + f.DefValue + ")"
		}
		rows = append(rows, [2]string{head, text})
		width = max(width, len(head))
	})
	for _, r := range rows {
		fmt.Fprintf(w, "  %-*s  %s\n", width, r[0], r[1])
	}
}
