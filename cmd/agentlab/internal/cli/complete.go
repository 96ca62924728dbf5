package cli

import (
	"context"
	"flag"
	"slices"
	"strings"
)

// Candidate is a word that could stand where the cursor is.
type Candidate struct {
	Text  string
	About string // a few words beside it
	shell bool   // Text tells the shell what to look for itself
}

// Kind finds the candidates for an argument or a flag's value. args are the
// command's arguments before it. Whatever goes wrong, there are none.
type Kind func(ctx context.Context, env *Env, args []string) []Candidate

// Words is a kind of these values.
func Words(values ...string) Kind {
	return func(context.Context, *Env, []string) []Candidate {
		out := make([]Candidate, len(values))
		for i, v := range values {
			out[i].Text = v
		}
		return out
	}
}

// Files and Directories are for the shell to find.
var (
	Files       = found(":file")
	Directories = found(":directory")
)

func found(text string) Kind {
	return func(context.Context, *Env, []string) []Candidate { return []Candidate{{Text: text, shell: true}} }
}

// line is a command line up to the cursor.
type line struct {
	global, own *flag.FlagSet
	cmd         Command
	args        []string
	value       *flag.Flag // whose value the cursor is at
	ended       bool       // by "--"
}

// Complete finds what the last word could become. The words are those after the
// program's name.
func (a *App) Complete(ctx context.Context, env *Env, words []string) []Candidate {
	if len(words) == 0 {
		return nil
	}
	last := words[len(words)-1]
	at := a.read(env, words[:len(words)-1])
	name, _, inline := strings.Cut(last, "=")
	switch {
	case at.value != nil:
		return a.ofKind(ctx, env, flagKind(at.value), at.args, "", last)
	case at.ended && at.cmd.Rest:
		return nil
	case !at.ended && isFlag(last) && inline:
		if f := at.flag(last); f != nil {
			return a.ofKind(ctx, env, flagKind(f), at.args, name+"=", last)
		}
		return nil
	case !at.ended && strings.HasPrefix(last, "-"):
		return beginning(at.flags(), last)
	}
	var next []Candidate
	if len(at.args) == 0 && !at.ended {
		next = beginning(a.next(at.cmd.Name), last)
	}
	return append(next, a.ofKind(ctx, env, argKind(at.cmd, len(at.args)), at.args, "", last)...)
}

// read takes words apart as parse does, and forgives what parse would not.
func (a *App) read(env *Env, words []string) *line {
	at := &line{global: newFlagSet(), own: newFlagSet(), cmd: a.command("")}
	env.Global.declare(at.global)
	var help bool
	at.global.BoolVar(&help, "help", false, "print this command's help")
	if len(words) > 0 && words[0] == "help" {
		words = words[1:]
	}
	for _, word := range words {
		switch {
		case at.value != nil:
			_ = at.value.Value.Set(word)
			at.value = nil
		case at.ended:
			at.args = append(at.args, word)
		case word == "--":
			at.ended = true
		case isFlag(word):
			at.take(word)
		case len(at.args) == 0 && a.begins(strings.TrimSpace(at.cmd.Name+" "+word)):
			at.cmd = a.command(strings.TrimSpace(at.cmd.Name + " " + word))
			at.own = newFlagSet()
			if at.cmd.Flags != nil {
				at.cmd.Flags(at.own)
			}
		default:
			at.args = append(at.args, word)
		}
	}
	return at
}

// take notes a flag; the next word may be its value.
func (l *line) take(word string) {
	_, value, inline := strings.Cut(word, "=")
	switch f := l.flag(word); {
	case f == nil:
	case inline:
		_ = f.Value.Set(value)
	case !isBool(f):
		l.value = f
	}
}

func (l *line) flag(word string) *flag.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	if f := l.own.Lookup(name); f != nil {
		return f
	}
	return l.global.Lookup(name)
}

func (l *line) flags() (out []Candidate) {
	for _, fs := range []*flag.FlagSet{l.own, l.global} {
		fs.VisitAll(func(f *flag.Flag) {
			_, usage := flag.UnquoteUsage(f)
			out = append(out, Candidate{Text: dashed(f.Name), About: usage})
		})
	}
	return out
}

// next are the words that may follow in a command's name.
func (a *App) next(name string) (out []Candidate) {
	for _, c := range a.Commands {
		rest, ok := strings.CutPrefix(c.Name, name)
		if ok && name != "" {
			rest, ok = strings.CutPrefix(rest, " ")
		}
		word, more, _ := strings.Cut(rest, " ")
		if !ok || c.Hidden || word == "" || slices.ContainsFunc(out, func(o Candidate) bool { return o.Text == word }) {
			continue
		}
		if more != "" { // its group stands elsewhere in the table, or nowhere
			c = a.command(strings.TrimSpace(name + " " + word))
		}
		out = append(out, Candidate{Text: word, About: c.Synopsis})
	}
	return out
}

func flagKind(f *flag.Flag) string {
	kind, _ := flag.UnquoteUsage(f)
	return strings.ToLower(kind)
}

// argKind is the kind of a command's n-th argument: its word in the usage line,
// or the last one's that may be repeated.
func argKind(c Command, n int) string {
	words := strings.Fields(c.Args)
	if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "[--") }); i >= 0 {
		words = words[:i]
	}
	if len(words) == 0 || c.Run == nil {
		return ""
	}
	if last := len(words) - 1; n > last && strings.Contains(words[last], "…") {
		n = last
	}
	if n >= len(words) {
		return ""
	}
	return strings.ToLower(strings.Trim(words[n], "[]…."))
}

func (a *App) ofKind(ctx context.Context, env *Env, kind string, args []string, prefix, last string) []Candidate {
	var found []Candidate
	for one := range strings.SplitSeq(kind, "|") { // of several kinds: [SANDBOX|JOB]
		if find := a.Kinds[one]; find != nil {
			found = append(found, find(ctx, env, args)...)
		}
	}
	// What begins so would be a flag, or another program's name to zsh.
	out := slices.DeleteFunc(found, func(c Candidate) bool { return strings.HasPrefix(c.Text, "-") || strings.HasPrefix(c.Text, "=") })
	for i := range out {
		if !out[i].shell {
			out[i].Text = prefix + out[i].Text
		}
	}
	return beginning(out, last)
}

// beginning keeps what begins with the typed text and can stand on a command
// line as it is: a name that a guest chose must not become a shell's words.
func beginning(all []Candidate, typed string) []Candidate {
	return slices.DeleteFunc(all, func(c Candidate) bool {
		return !c.shell && (!strings.HasPrefix(c.Text, typed) || c.Text == "" || strings.ContainsFunc(c.Text, special))
	})
}

func special(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune("-_./=+@,%", r)
}
