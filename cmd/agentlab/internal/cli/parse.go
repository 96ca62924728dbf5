package cli

import (
	"flag"
	"io"
	"slices"
	"strings"

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

// parse finds the command and reads its flags.
func (a *App) parse(args []string, env *Env) (invocation, error) {
	inv := invocation{env: env}
	before, rest := split(args)
	cmd, flags, err := a.locate(before)
	inv.cmd, inv.words = cmd, strings.Fields(cmd.Name)
	if err != nil {
		return inv, err
	}
	fs := newFlagSet()
	env.Global.declare(fs)
	fs.BoolVar(&inv.help, "help", false, "")
	fs.BoolVar(&inv.help, "h", false, "")
	if cmd.Name == "" {
		fs.BoolVar(&inv.version, "version", false, "")
	}
	if cmd.Flags != nil {
		cmd.Flags(fs)
	}
	inv.args, err = parseAnywhere(fs, flags)
	if err != nil {
		return inv, a.flagError(cmd, fs, err)
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

func newFlagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// split cuts at the first "--".
func split(args []string) (before, rest []string) {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i], args[i+1:]
	}
	return args, nil
}

// locate finds the command that the words name, the longest there is, and
// returns it with everything that is not its name. Global flags may stand
// before and between the words, so a flag's value is not mistaken for a word.
func (a *App) locate(args []string) (Command, []string, error) {
	fs := newFlagSet()
	new(Global).declare(fs)
	var name string
	var flags []string
	for len(args) > 0 {
		word := args[0]
		if isFlag(word) {
			n := width(fs, word)
			if n == 0 {
				if name == "" {
					return Command{}, nil, fault.New(fault.Invalid, "%s: unknown flag before a command", word).
						WithHint("%s --help lists the commands and the flags that may stand before them", a.Name)
				}
				break
			}
			n = min(n, len(args))
			flags, args = append(flags, args[:n]...), args[n:]
			continue
		}
		longer := strings.TrimSpace(name + " " + word)
		if !a.begins(longer) {
			break
		}
		name, args = longer, args[1:]
	}
	cmd := a.command(name)
	if cmd.Run == nil && len(args) > 0 && !isFlag(args[0]) {
		return cmd, nil, a.unknown(cmd, args)
	}
	return cmd, slices.Concat(flags, args), nil
}

func isFlag(word string) bool { return len(word) > 1 && word[0] == '-' }

// width is how many words a flag takes, 0 when it is not one that every command
// has.
func width(fs *flag.FlagSet, word string) int {
	name, _, inline := strings.Cut(strings.TrimLeft(word, "-"), "=")
	f := fs.Lookup(name)
	switch {
	case f == nil && (name == "help" || name == "h" || name == "version"):
		return 1
	case f == nil:
		return 0
	case inline || isBool(f):
		return 1
	}
	return 2
}

// begins reports whether name is a command or the beginning of one.
func (a *App) begins(name string) bool {
	return slices.ContainsFunc(a.Commands, func(c Command) bool { return c.Name == name || strings.HasPrefix(c.Name, name+" ") })
}

// command is the one of this name; where there is none, a group without words
// of its own.
func (a *App) command(name string) Command {
	if i := slices.IndexFunc(a.Commands, func(c Command) bool { return c.Name == name }); i >= 0 {
		return a.Commands[i]
	}
	return Command{Name: name}
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

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func (a *App) title(c Command) string { return strings.TrimSpace(a.Name + " " + c.Name) }

// wantsJSON answers for command lines that could not be read.
func wantsJSON(args []string) bool {
	before, _ := split(args)
	return slices.ContainsFunc(before, func(s string) bool { return s == "--json" || s == "-json" || s == "--json=true" })
}
