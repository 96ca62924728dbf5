package cli

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/agentlab/agentlab/sdk/fault"
)

// invocation is a command line taken apart.
type invocation struct {
	cmd     Command
	words   []string // the command's
	args    []string // positional
	env     *Env
	help    bool
	version bool
}

// parse finds the command and reads its flags. Global flags may stand before
// it, so words that are values of such flags are not mistaken for commands.
func (a *App) parse(args []string, env *Env) (invocation, error) {
	inv := invocation{env: env}
	before, rest := split(args)
	words, flags, err := a.locate(before)
	if err != nil {
		return inv, err
	}
	cmd, extra, err := a.find(words)
	if err != nil {
		return inv, err
	}
	inv.cmd, inv.words = cmd, strings.Fields(cmd.Name)
	fs := flag.NewFlagSet(cmd.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	env.Global.declare(fs)
	fs.BoolVar(&inv.help, "help", false, "")
	fs.BoolVar(&inv.help, "h", false, "")
	if cmd.Name == "" {
		fs.BoolVar(&inv.version, "version", false, "")
	}
	if cmd.Flags != nil {
		cmd.Flags(fs)
	}
	inv.args, err = parseAnywhere(fs, slices.Concat(flags, extra))
	if err != nil {
		return inv, fault.New(fault.Invalid, "%s: %w%s", a.title(cmd), err, suggestFlag(fs, err))
	}
	if inv.help || inv.version {
		return inv, nil
	}
	if cmd.Rest {
		env.Rest = rest
	} else {
		inv.args = append(inv.args, rest...)
	}
	return inv, a.count(inv)
}

// split cuts at the first "--".
func split(args []string) (before, rest []string) {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i], args[i+1:]
	}
	return args, nil
}

// locate takes leading global flags off, so that what follows begins with the
// command.
func (a *App) locate(args []string) (words, flags []string, err error) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var g Global
	g.declare(fs)
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && len(args[0]) > 1 {
		name := strings.TrimLeft(args[0], "-")
		name, _, inline := strings.Cut(name, "=")
		f := fs.Lookup(name)
		if f == nil && name != "help" && name != "h" && name != "version" {
			return nil, nil, fault.New(fault.Invalid, "%s: unknown flag before a command", args[0]).
				WithHint("%s --help lists the commands and the flags that may stand before them", a.Name)
		}
		n := 1
		if f != nil && !inline && !isBool(f) {
			n = min(2, len(args))
		}
		flags, args = append(flags, args[:n]...), args[n:]
	}
	return args, flags, nil
}

// find matches the longest command name at the beginning of words; what is left
// are flags and arguments.
func (a *App) find(words []string) (Command, []string, error) {
	best := Command{}
	for _, c := range a.Commands {
		name := strings.Fields(c.Name)
		if len(name) <= len(words) && slices.Equal(name, words[:len(name)]) && len(name) > len(strings.Fields(best.Name)) {
			best = c
		}
	}
	rest := words[len(strings.Fields(best.Name)):]
	if best.Run == nil && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		full := strings.TrimSpace(best.Name + " " + rest[0])
		err := fault.New(fault.Invalid, "there is no command %q", a.Name+" "+full)
		if s := a.near(best.Name, rest[0]); s != "" {
			return best, nil, err.WithHint("did you mean %q?", a.Name+" "+s)
		}
		return best, nil, err.WithHint("%s --help lists what there is", strings.TrimSpace(a.Name+" "+best.Name))
	}
	return best, rest, nil
}

// near is the command below group whose next word is close to word.
func (a *App) near(group, word string) string {
	best, bestAt := "", 3
	for _, c := range a.Commands {
		next, ok := strings.CutPrefix(c.Name, group)
		if !ok || c.Hidden || next == "" {
			continue
		}
		next = strings.Fields(next)[0]
		if d := levenshtein.Distance(word, next, nil); d < bestAt {
			best, bestAt = strings.TrimSpace(group+" "+next), d
		}
	}
	return best
}

// parseAnywhere reads flags before, between and after positional arguments.
func parseAnywhere(fs *flag.FlagSet, args []string) ([]string, error) {
	var positional []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return positional, nil
		}
		positional = append(positional, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

func (a *App) count(inv invocation) error {
	c, n := inv.cmd, len(inv.args)
	switch {
	case c.Run == nil:
		return nil
	case n < c.MinArgs:
		return fault.New(fault.Invalid, "%s: missing argument", a.title(c)).WithHint("usage: %s", a.usage(c))
	case c.MaxArgs >= 0 && n > c.MaxArgs:
		return fault.New(fault.Invalid, "%s: unexpected argument %q", a.title(c), inv.args[c.MaxArgs]).WithHint("usage: %s", a.usage(c))
	}
	return nil
}

func suggestFlag(fs *flag.FlagSet, err error) string {
	_, name, ok := strings.Cut(err.Error(), "not defined: -")
	if !ok {
		return ""
	}
	best, bestAt := "", 3
	fs.VisitAll(func(f *flag.Flag) {
		if d := levenshtein.Distance(strings.TrimLeft(name, "-"), f.Name, nil); d < bestAt {
			best, bestAt = f.Name, d
		}
	})
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean --%s?", best)
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func (a *App) title(c Command) string { return strings.TrimSpace(a.Name + " " + c.Name) }
