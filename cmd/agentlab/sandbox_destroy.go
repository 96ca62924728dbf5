package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

func sandboxDestroyCommand(name string) cli.Command {
	var force, detach bool
	return cli.Command{
		Name: name, Args: "SANDBOX…", Synopsis: "destroy sandboxes and all that is in them",
		MinArgs: 1, MaxArgs: -1,
		Help: `
Destroys sandboxes and waits for their end. A job that runs in one is cancelled;
its artifacts so far are kept. Asks first on a terminal, and needs --force
where there is nobody to ask.`,
		Answers: []cli.Answer{cli.AnswerOf[destroyed]("destroyed")},
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&force, "force", false, "do not ask")
			fs.BoolVar(&detach, "detach", false, "do not wait for the end")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			question := "destroy " + strings.Join(args, ", ") + " and all that is in it?"
			c, err := connect(env)
			if err != nil {
				return err
			}
			if !force {
				if err := sayLost(ctx, env.Err, c, args); err != nil {
					return err
				}
			}
			if err := confirm(ctx, env, force, question); err != nil {
				return err
			}
			return destroyAll(ctx, env, c, args, detach)
		},
	}
}

// ended is how the destruction of one sandbox went, for programs.
type ended struct {
	Sandbox   string        `json:"sandbox"`
	Operation api.Operation `json:"operation"`
}

type destroyed struct {
	Sandboxes []ended `json:"sandboxes"`
}

// sayLost tells what goes with the sandboxes. One that is not there ends it.
func sayLost(ctx context.Context, w io.Writer, c *client.Client, refs []string) error {
	for _, ref := range refs {
		s, err := c.Sandbox(ctx, ref)
		if err != nil {
			return fmt.Errorf("destroy %s: %w", ref, err)
		}
		name := words(s.Name, vmid(s.VMID))
		fmt.Fprintln(w, oneLine(fmt.Sprintf("%s is %s, made from profile %s %s ago; its files and what runs in it will be lost", name, s.State, s.Profile, age(time.Since(s.CreatedAt)))))
		if s.JobID == "" {
			continue
		}
		j, err := c.Job(ctx, s.JobID, 0)
		switch {
		case fault.ClassOf(err) == fault.NotFound:
		case err != nil:
			return fmt.Errorf("destroy %s: %w", ref, err)
		case !lab.JobState(j.State).Ended():
			fmt.Fprintln(w, oneLine(fmt.Sprintf("  %s, %s, will be cancelled; its artifacts so far are kept: %s", j.ID, j.State, clip(j.Task, 60))))
		}
	}
	return nil
}

// destroyAll asks for all ends first, so that they go on side by side.
func destroyAll(ctx context.Context, env *cli.Env, c *client.Client, refs []string, detach bool) error {
	var failed []error
	asked := []ended{}
	for _, ref := range refs {
		a, err := c.DestroySandbox(ctx, ref)
		if err != nil {
			failed = append(failed, fmt.Errorf("destroy %s: %w", ref, err))
			continue
		}
		asked = append(asked, ended{ref, a.Operation})
	}
	for i, e := range asked {
		if detach {
			break
		}
		op, err := c.WaitOperation(ctx, e.Operation.ID)
		if err == nil {
			asked[i].Operation = op
			err = operationError(op)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("destroy %s: %w", e.Sandbox, err))
			continue
		}
		fmt.Fprintln(env.Err, "destroyed", e.Sandbox)
	}
	err := show(env, destroyed{asked}, func(io.Writer) {})
	if ctx.Err() != nil && len(failed) > 0 {
		return &exitError{exitCancelled, fault.New(fault.Unavailable, "stopped waiting; the end of %d of %d sandboxes was asked for and goes on", len(asked), len(refs)).
			WithHint("agentlab sandbox list shows those that are left")}
	}
	return errors.Join(append(failed, err)...)
}

// mayAsk insists on --force where nobody can be asked.
func mayAsk(env *cli.Env, force bool, question string) error {
	if force || isTerminal(env.In) {
		return nil
	}
	return fault.New(fault.Invalid, "%s There is nobody to ask", question).WithHint("add --force")
}

// confirm asks on a terminal and insists on --force elsewhere.
func confirm(ctx context.Context, env *cli.Env, force bool, question string) error {
	if err := mayAsk(env, force, question); force || err != nil {
		return err
	}
	fmt.Fprint(env.Err, oneLine(question)+" [y/N] ")
	answer := make(chan string, 1)
	go func() { // ends with the process: reading a terminal cannot be cut short
		line, _ := bufio.NewReader(env.In).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(env.Err)
		return &exitError{exitCancelled, fault.New(fault.Precondition, "nothing was done")}
	}
	return fault.New(fault.Precondition, "nothing was done")
}
