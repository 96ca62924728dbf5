package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Markdown writes the reference of all commands, by name.
func (a *App) Markdown(w io.Writer) {
	fmt.Fprintf(w, "# %s\n\n%s\n", a.Name, a.About)
	commands := a.byName()
	rows := make([][2]string, len(commands))
	for i, c := range commands {
		link := strings.ReplaceAll(a.title(c), " ", "-")
		rows[i] = [2]string{fmt.Sprintf("[`%s`](#%s)", a.title(c), link), c.Synopsis}
	}
	mdTable(w, "command", rows)
	fmt.Fprint(w, "\n## Flags of every command\n\nThey may stand before, between and behind the words of the command. `--` ends all flags.\n")
	mdTable(w, "flag", code(flagRows(new(Global).declare)))
	if a.Notes != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(a.Notes))
	}
	mdTable(w, "exit code", a.codeRows())
	for _, c := range commands {
		fmt.Fprintf(w, "\n## %s\n\n```\n%s\n```\n\n%s\n", a.title(c), a.usage(c), a.about(c))
		if len(c.Answers) > 0 {
			fmt.Fprintf(w, "\nWith --json: %s.\n", answers(c, func(name string) string { return fmt.Sprintf("[%[1]s](schema/%[1]s.json)", name) }))
		}
		mdTable(w, "flag", code(flagRows(c.Flags)))
	}
}

// byName are the commands that people see, as the references list them.
func (a *App) byName() []Command {
	return slices.SortedFunc(slices.Values(a.visible()), func(x, y Command) int { return cmp.Compare(x.Name, y.Name) })
}

func (a *App) codeRows() [][2]string {
	var rows [][2]string
	for _, c := range a.Codes {
		rows = append(rows, [2]string{strconv.Itoa(c.Code), c.Meaning})
	}
	return rows
}

// answers names the schemas of what a command prints.
func answers(c Command, show func(name string) string) string {
	parts := make([]string, len(c.Answers))
	for i, a := range c.Answers {
		if parts[i] = show(a.Name); a.Lines {
			parts[i] += " on each line"
		}
	}
	return strings.Join(parts, ", or ")
}

func code(rows [][2]string) [][2]string {
	for i := range rows {
		rows[i][0] = "`" + rows[i][0] + "`"
	}
	return rows
}

func mdTable(w io.Writer, head string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| %s | |\n|---|---|\n", head)
	for _, r := range rows {
		fmt.Fprintf(w, "| %s | %s |\n", r[0], strings.ReplaceAll(r[1], "|", `\|`))
	}
}
