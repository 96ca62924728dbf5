package cli

import (
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/agentlab/agentlab/sdk/fault"
)

// unknown is the error for words of which no command has the first at this place.
func (a *App) unknown(group Command, words []string) error {
	word := words[0]
	if name := strings.TrimSpace(group.Name + " " + word); slices.Contains(a.Later, name) {
		return fault.New(fault.Invalid, "%s %s is not in this version", a.Name, name).
			WithHint("%s --help lists what there is", a.Name)
	}
	err := fault.New(fault.Invalid, "there is no command %q", a.title(group)+" "+word)
	var next []string
	for _, c := range a.Commands {
		below, ok := strings.CutPrefix(c.Name, group.Name)
		if ok && !c.Hidden && strings.TrimSpace(below) != "" {
			next = append(next, strings.Fields(below)[0])
		}
	}
	if s := Nearest(word, next); s != "" {
		return err.WithHint("did you mean %q?", a.title(group)+" "+a.goOn(strings.TrimSpace(group.Name+" "+s), s, words[1:]))
	}
	return err.WithHint("%s --help lists what there is", a.title(group))
}

// goOn puts behind a command's suggested name what the following words were
// probably meant to be.
func (a *App) goOn(name, said string, words []string) string {
	for len(words) > 0 && !isFlag(words[0]) && a.command(name).Run == nil {
		var below []string
		for _, c := range a.Commands {
			if rest, ok := strings.CutPrefix(c.Name, name+" "); ok && !c.Hidden {
				below = append(below, strings.Fields(rest)[0])
			}
		}
		s := Nearest(words[0], below)
		if s == "" {
			break
		}
		name, said, words = name+" "+s, said+" "+s, words[1:]
	}
	return said
}

// Nearest is the name that word was probably meant to be, or "". Two wrong
// letters are forgiven only after a right first one: short names are all near
// each other.
func Nearest(word string, names []string) string {
	best, bestAt := "", 3
	for _, name := range names {
		d := levenshtein.Distance(word, name, nil)
		switch {
		case len(word) > 1 && strings.HasPrefix(name, word):
			d = 1
		case d == 2 && (word == "" || word[0] != name[0] || len(name) < 3):
			continue
		}
		if d < bestAt && d < len(name) {
			best, bestAt = name, d
		}
	}
	return best
}

// flagError says what package flag means in the words and with the dashes of
// this program.
func (a *App) flagError(cmd Command, fs *flag.FlagSet, err error) error {
	text := err.Error()
	hint := a.title(cmd) + " --help lists the flags"
	if _, name, ok := strings.Cut(text, "not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		if slices.Contains(a.Later, "--"+name) {
			return fault.New(fault.Invalid, "%s: --%s is not in this version", a.title(cmd), name).WithHint("%s", hint)
		}
		text = "unknown flag --" + name
		var names []string
		fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
		if s := Nearest(name, names); s != "" {
			hint = fmt.Sprintf("did you mean %s?", dashed(s))
		}
	} else if _, name, ok := strings.Cut(text, "needs an argument: -"); ok {
		text = dashed(name) + " needs a value"
	} else if value, name, ok := badValue(text); ok {
		text = dashed(name) + ": " + value
	}
	return fault.New(fault.Invalid, "%s: %s", a.title(cmd), text).WithHint("%s", hint)
}

// badValue takes apart `invalid [boolean ]value "x" for flag -name: cause`.
func badValue(text string) (value, name string, ok bool) {
	head, tail, ok := strings.Cut(text, " for flag -")
	if !ok {
		head, tail, ok = strings.Cut(text, " for -")
	}
	_, quoted, found := strings.Cut(head, "value ")
	name, cause, hasCause := strings.Cut(tail, ": ")
	if !ok || !found || !hasCause {
		return "", "", false
	}
	if cause == "parse error" || strings.HasPrefix(cause, "strconv.") {
		cause = quoted + " is not a usable value"
	}
	return cause, name, true
}

// dashed is a flag as it is written in help texts.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
