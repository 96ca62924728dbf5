package cli

import (
	"context"
	"fmt"

	mitchellh "github.com/mitchellh/cli"
)

// Main runs the command line and returns the exit code.
func (a *App) Main(ctx context.Context, args []string, env *Env) int {
	inv, err := a.parse(args, env)
	switch {
	case err != nil:
		return a.Explain(env, err)
	case inv.version:
		fmt.Fprintln(env.Out, a.Name, a.Version)
		return 0
	case inv.help || inv.cmd.Run == nil:
		out, code := env.Out, 0
		if !inv.help { // a group alone is a question, not a command
			out, code = env.Err, 2
		}
		a.help(out, a.described(inv.cmd))
		return code
	}
	return a.dispatch(ctx, inv)
}

func (a *App) described(c Command) Command {
	if c.Name == "" {
		c.Help = a.About
	}
	return c
}

// dispatch hands the parsed command to mitchellh/cli, which sees only its words:
// it would drop flags after arguments and answer --help meant for others.
func (a *App) dispatch(ctx context.Context, inv invocation) int {
	runner := mitchellh.NewCLI(a.Name, a.Version)
	runner.Args = inv.words
	runner.Autocomplete = false
	runner.HelpWriter, runner.ErrorWriter = inv.env.Out, inv.env.Err
	runner.Commands = map[string]mitchellh.CommandFactory{
		inv.cmd.Name: func() (mitchellh.Command, error) { return &bound{ctx, a, inv}, nil },
	}
	code, err := runner.Run()
	if err != nil {
		return a.Explain(inv.env, err)
	}
	return code
}

// bound is a parsed command as mitchellh/cli wants it. It lives for one call,
// which is why it may hold a context.
type bound struct {
	ctx context.Context
	app *App
	inv invocation
}

func (b *bound) Help() string     { return b.app.usage(b.inv.cmd) }
func (b *bound) Synopsis() string { return b.inv.cmd.Synopsis }

func (b *bound) Run([]string) int {
	if err := b.inv.cmd.Run(b.ctx, b.inv.env, b.inv.args); err != nil {
		return b.app.Explain(b.inv.env, err)
	}
	return 0
}
