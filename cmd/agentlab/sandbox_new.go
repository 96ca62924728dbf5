package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
)

func sandboxNewCommand(name string) cli.Command {
	var req api.SandboxCreate
	var ttl cli.Duration
	var detach bool
	return cli.Command{
		Name: name, Synopsis: "make a sandbox to work in by hand",
		Help: `
Makes a sandbox from a profile and waits until its guest is ready. It lives
until it is destroyed or its time is over; no job runs in it until one is sent
there with agentlab job run --sandbox.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Sandbox]("sandbox")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&req.Profile, "profile", "", "`profile` to make it from (required)")
			fs.StringVar(&req.Name, "name", "", "unique `name`; one is chosen when it is left out")
			fs.Var(&ttl, "ttl", "how long it lives, a `duration` or minutes (default: the profile's)")
			fs.BoolVar(&req.Keep, "keep", false, "it does not expire")
			fs.BoolVar(&detach, "detach", false, "do not wait until it is ready")
		},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			if req.Profile == "" {
				return fault.New(fault.Invalid, "which profile? --profile is missing").WithHint("agentlab sandbox new --profile NAME")
			}
			c, err := connect(env)
			if err != nil {
				return err
			}
			req.TTLSeconds = ttl.Seconds()
			accepted, err := c.CreateSandbox(ctx, req)
			if err != nil {
				return err
			}
			if !detach {
				if err := awaitSandbox(ctx, env, c, accepted); err != nil {
					return err
				}
			}
			s, err := c.Sandbox(ctx, accepted.Sandbox.ID)
			if err != nil {
				return err
			}
			return show(env, s, func(w io.Writer) {
				printSandbox(w, s)
				fmt.Fprintf(env.Err, "\nnext: %s    %s\n", next(env, "ssh", s.Name), next(env, "sandbox destroy", s.Name))
			})
		},
	}
}

// awaitSandbox follows the operation and turns its failure into an error.
func awaitSandbox(ctx context.Context, env *cli.Env, c *client.Client, a api.Accepted) error {
	p := newProgress(env, c)
	defer p.stop()
	op, err := p.operation(ctx, c, a.Operation)
	if err != nil {
		if ctx.Err() != nil {
			return &exitError{exitCancelled, fault.New(fault.Unavailable, "stopped waiting; the sandbox goes on").
				WithHint("look at it with: agentlab sandbox show %[1]s    end it with: agentlab sandbox destroy %[1]s", a.Sandbox.Name)}
		}
		return err
	}
	return operationError(op)
}

// operationError is nil for an operation that did its work.
func operationError(op api.Operation) error {
	if op.State == "DONE" {
		return nil
	}
	class := fault.Class(op.Class)
	if class == "" {
		class = fault.Internal
	}
	text := op.Error
	if text == "" {
		text = "was " + op.State
	}
	return fault.New(class, "%s: %s", op.Kind, text).WithHint("%s", op.Hint) // the text names the step
}
