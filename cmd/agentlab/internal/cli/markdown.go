package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Markdown writes the reference of all commands, by name.
func (a *App) Markdown(w io.Writer) {
	fmt.Fprintf(w, "# %s\n\n%s\n", a.Name, a.About)
	commands := slices.DeleteFunc(slices.Clone(a.Commands), func(c Command) bool { return c.Hidden || c.Run == nil })
	slices.SortFunc(commands, func(x, y Command) int { return strings.Compare(x.Name, y.Name) })
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
	for _, c := range commands {
		fmt.Fprintf(w, "\n## %s\n\n```\n%s\n```\n\n%s\n", a.title(c), a.usage(c), a.about(c))
		mdTable(w, "flag", code(flagRows(c.Flags)))
	}
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
