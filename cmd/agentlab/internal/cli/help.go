package cli

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mitchellh/go-wordwrap"
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
	if c.Name == "" {
		a.overview(w)
	} else {
		section(w, "Commands", a.below(c), 0)
	}
	section(w, "Flags", flagRows(c.Flags), 0)
	section(w, "Flags of every command", flagRows(new(Global).declare), 0)
	if c.Run == nil {
		fmt.Fprintf(w, "\n%s --help tells more about a command.\n", strings.TrimSpace(a.title(c)+" COMMAND"))
	}
}

// overview lists every command under its heading, short forms beside what they
// are short for.
func (a *App) overview(w io.Writer) {
	const rest = "Commands"
	rows, wide := map[string][][2]string{}, 0
	for _, c := range a.visible() {
		if c.ShortFor != "" {
			continue
		}
		names := c.Name
		for _, s := range a.Commands {
			if s.ShortFor == c.Name {
				names += ", " + s.Name
			}
		}
		heading := a.heading(c)
		if !slices.Contains(a.Headings, heading) {
			heading = rest
		}
		rows[heading] = append(rows[heading], [2]string{names, c.Synopsis})
		wide = max(wide, utf8.RuneCountInString(names))
	}
	for _, heading := range append(slices.Clone(a.Headings), rest) {
		section(w, heading, rows[heading], wide)
	}
}

// visible are the commands that people see, in the order of the table.
func (a *App) visible() []Command {
	return slices.DeleteFunc(slices.Clone(a.Commands), func(c Command) bool { return c.Hidden || c.Run == nil })
}

// heading is what a command stands under.
func (a *App) heading(c Command) string {
	if c.ShortFor != "" {
		c = a.command(c.ShortFor)
	}
	first, _, _ := strings.Cut(c.Name, " ")
	return cmp.Or(c.Heading, a.command(first).Heading)
}

// below lists the commands of a group.
func (a *App) below(group Command) [][2]string {
	var rows [][2]string
	for _, c := range a.Commands {
		if strings.HasPrefix(c.Name, group.Name+" ") && !c.Hidden {
			rows = append(rows, [2]string{c.Name, c.Synopsis})
		}
	}
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

// columns is how wide help is.
const columns = 80

// section prints rows in two columns, the first at least so wide.
func section(w io.Writer, title string, rows [][2]string, wide int) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, r := range rows {
		wide = max(wide, utf8.RuneCountInString(r[0]))
	}
	indent := "\n" + strings.Repeat(" ", wide+4)
	for _, r := range rows {
		text := wordwrap.WrapString(r[1], uint(max(columns-wide-4, 20)))
		fmt.Fprintf(w, "  %-*s  %s\n", wide, r[0], strings.ReplaceAll(text, "\n", indent))
	}
}
