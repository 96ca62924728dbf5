package cli

import (
	"context"
	"fmt"

	mitchellh "github.com/mitchellh/cli"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Main runs the command line and returns the exit code. The word "help" before
// a command is another way to write --help.
func (a *App) Main(ctx context.Context, args []string, env *Env) int {
	if len(args) > 0 && args[0] == "help" {
		args = append([]string{"--help"}, args[1:]...)
	}
	inv, err := a.parse(args, env)
	switch {
	case err != nil:
		env.Global.JSON = wantsJSON(args)
		return a.Explain(env, err)
	case inv.version:
		fmt.Fprintln(env.Out, a.Name, a.Version)
		return 0
	case inv.help:
		a.help(env.Out, inv.cmd)
		return 0
	case inv.cmd.Run == nil && env.Global.JSON:
		return a.Explain(env, fault.New(fault.Invalid, "%s: which command?", a.title(inv.cmd)).
			WithHint("%s --help lists what there is", a.title(inv.cmd)))
	case inv.cmd.Run == nil: // a group alone is a question, not a command
		a.help(env.Err, inv.cmd)
		return 2
	}
	return a.dispatch(ctx, inv)
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
