package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
)

func operationCancelCommand() cli.Command {
	var wait bool
	return cli.Command{
		Name: "operation cancel", Args: "OPERATION", Synopsis: "stop an operation and undo what it made", MinArgs: 1, MaxArgs: 1,
		Help: `
Asks an operation to stop and returns at once. A create-sandbox is undone and
its sandbox goes; a step that has called a plugin is let end first. A run-job
stops its job, as agentlab job cancel does. A destroy-sandbox is not stopped:
what it has removed is not brought back. Asking again changes nothing; an
operation that ended in another way is not cancelled any more, which is code 5.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Accepted]("accepted"), cli.AnswerOf[api.Operation]("operation")},
		Flags:   func(fs *flag.FlagSet) { fs.BoolVar(&wait, "wait", false, "wait for the end of the operation") },
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			a, err := c.CancelOperation(ctx, args[0])
			if err != nil {
				return err
			}
			if !wait {
				return show(env, a, func(io.Writer) {
					if a.Operation.EndedAt != nil {
						fmt.Fprintf(env.Err, "%s was cancelled before\n", a.Operation.Kind)
						return
					}
					fmt.Fprintf(env.Err, "asked %s to stop; its end shows in: %s\n", a.Operation.Kind, next(env, "operation show", args[0]))
				})
			}
			return awaitCancelled(ctx, env, c, args[0])
		},
	}
}

// awaitCancelled waits until the operation has ended: cancelled, or done, which
// is how a run-job ends whose job was cancelled.
func awaitCancelled(ctx context.Context, env *cli.Env, c *client.Client, id string) error {
	op, err := c.WaitOperation(ctx, id)
	if err != nil {
		return err
	}
	if op.State == string(lab.OpFailed) {
		return operationError(op)
	}
	return show(env, op, func(io.Writer) { fmt.Fprintf(env.Err, "%s has ended: %s\n", op.Kind, op.State) })
}
