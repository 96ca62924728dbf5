package main

import (
	"context"
	"flag"
	"io"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

func jobLogsCommand() cli.Command {
	var q client.LogQuery
	var follow bool
	return cli.Command{
		Name: "job logs", Args: "JOB", Synopsis: "print a job's output", MinArgs: 1, MaxArgs: 1,
		Flags: func(fs *flag.FlagSet) {
			fs.IntVar(&q.Tail, "tail", 0, "only the last `lines`")
			fs.BoolVar(&follow, "f", false, "follow until the job has ended")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			if follow {
				return c.FollowLog(ctx, args[0], q, env.Out)
			}
			return copyLog(ctx, c, args[0], q, env.Out)
		},
	}
}

func copyLog(ctx context.Context, c *client.Client, id string, q client.LogQuery, w io.Writer) error {
	r, err := c.JobLog(ctx, id, q)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = io.Copy(w, r)
	return err
}

func logsCommand() cli.Command {
	var tail int
	var follow bool
	return cli.Command{
		Name: "logs", Args: "SANDBOX", Synopsis: "print a sandbox's events and its job's output", MinArgs: 1, MaxArgs: 1,
		Flags: func(fs *flag.FlagSet) {
			fs.IntVar(&tail, "tail", 100, "only the last events and `lines`")
			fs.BoolVar(&follow, "f", false, "follow")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			s, err := c.Sandbox(ctx, args[0])
			if err != nil {
				return err
			}
			return sandboxLogs(ctx, env, c, s, tail, follow)
		},
	}
}

func sandboxLogs(ctx context.Context, env *cli.Env, c *client.Client, s api.Sandbox, tail int, follow bool) error {
	events, err := c.SandboxEvents(ctx, s.ID, tail)
	if err != nil {
		return err
	}
	if env.Global.JSON && !follow {
		return show(env, map[string]any{"events": events}, nil)
	}
	var last int64
	for _, e := range events {
		printEvent(env.Out, e)
		last = e.ID
	}
	if s.JobID != "" && !follow {
		err := copyLog(ctx, c, s.JobID, client.LogQuery{Tail: tail}, env.Out)
		if fault.ClassOf(err) == fault.NotFound {
			return nil
		}
		return err
	}
	if !follow {
		return nil
	}
	for e, err := range c.Events(ctx, client.EventQuery{After: &last, SandboxID: s.ID}) {
		if err != nil {
			return err
		}
		printEvent(env.Out, e)
		if e.Type == lab.EventSandboxChanged && e.Fields["to"] == string(lab.SandboxDestroyed) {
			return nil
		}
	}
	return nil
}
