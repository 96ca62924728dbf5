package cli

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/mitchellh/go-wordwrap"
)

// Man writes the manual page, in the man(7) language.
func (a *App) Man(w io.Writer) {
	fmt.Fprintf(w, ".TH %s 1 \"\" \"%s\" \"User Commands\"\n", strings.ToUpper(a.Name), roff(a.Name))
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", roff(a.Name), roff(strings.TrimSuffix(a.About, ".")))
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B %s\n.I command\n.RI [ flags ]\n", roff(a.Name))
	fmt.Fprint(w, ".SH DESCRIPTION\n")
	manText(w, a.Notes)
	for _, heading := range a.Headings {
		fmt.Fprintf(w, ".SH %s\n", roff(strings.ToUpper(heading)))
		for _, c := range a.visible() {
			if a.heading(c) == heading {
				a.manCommand(w, c)
			}
		}
	}
	fmt.Fprint(w, ".SH FLAGS OF EVERY COMMAND\n")
	manList(w, flagRows(new(Global).declare))
	fmt.Fprint(w, ".SH EXIT STATUS\n")
	manList(w, a.codeRows())
}

func (a *App) manCommand(w io.Writer, c Command) {
	fmt.Fprintf(w, ".SS %s\n", roff(a.usage(c)))
	if c.ShortFor != "" {
		fmt.Fprintf(w, "Short for\n.BR \"%s %s\" .\n", roff(a.Name), roff(c.ShortFor))
		return
	}
	manText(w, a.about(c))
	if len(c.Answers) > 0 {
		fmt.Fprintf(w, ".PP\nWith\n.B \\-\\-json\nprints: %s.\n", roff(answers(c, func(name string) string { return name })))
	}
	manList(w, flagRows(c.Flags))
}

// manList is a list of terms and what they mean.
func manList(w io.Writer, rows [][2]string) {
	for _, r := range rows {
		fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(r[0]), roff(r[1]))
	}
}

// manText writes paragraphs that blank lines separate.
func manText(w io.Writer, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			fmt.Fprintln(w, ".PP")
		}
		fmt.Fprintln(w, roff(strings.Join(strings.Fields(paragraph), " ")))
	}
}

// control is what begins a request when it stands first on a line.
var control = regexp.MustCompile(`(?m)^[.']`)

var backquoted = regexp.MustCompile("`([^`]*)`")

// roff escapes what the formatter would take for its own; back quotes make bold.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	s = backquoted.ReplaceAllString(s, `\fB$1\fR`)
	s = wordwrap.WrapString(s, columns-2)
	return control.ReplaceAllString(s, `\&$0`)
}
