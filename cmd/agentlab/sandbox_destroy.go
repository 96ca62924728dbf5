package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
)

func sandboxDestroyCommand(name string) cli.Command {
	var force, detach bool
	return cli.Command{
		Name: name, Args: "SANDBOX…", Synopsis: "destroy sandboxes and all that is in them",
		MinArgs: 1, MaxArgs: -1,
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&force, "force", false, "do not ask")
			fs.BoolVar(&detach, "detach", false, "do not wait for the end")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			if err := confirm(env, force, "destroy "+strings.Join(args, ", ")+" and all that is in it?"); err != nil {
				return err
			}
			c, err := connect(env)
			if err != nil {
				return err
			}
			return destroyAll(ctx, env, c, args, detach)
		},
	}
}

// destroyAll asks for all ends first, so that they go on side by side.
func destroyAll(ctx context.Context, env *cli.Env, c *client.Client, refs []string, detach bool) error {
	var failed []error
	operations := map[string]string{}
	var order []string
	for _, ref := range refs {
		a, err := c.DestroySandbox(ctx, ref)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", ref, err))
			continue
		}
		operations[ref] = a.Operation.ID
		order = append(order, ref)
	}
	for _, ref := range order {
		if detach {
			break
		}
		op, err := c.WaitOperation(ctx, operations[ref])
		if err == nil {
			err = operationError(op)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", ref, err))
			continue
		}
		fmt.Fprintln(env.Err, "destroyed", ref)
	}
	return errors.Join(failed...)
}

// confirm asks on a terminal and insists on --force elsewhere.
func confirm(env *cli.Env, force bool, question string) error {
	if force {
		return nil
	}
	in, ok := env.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fault.New(fault.Invalid, "this destroys things and there is nobody to ask").WithHint("add --force")
	}
	fmt.Fprint(env.Err, question+" [y/N] ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(line), "y") {
		return fault.New(fault.Precondition, "nothing was done")
	}
	return nil
}
