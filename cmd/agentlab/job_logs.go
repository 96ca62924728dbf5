package main

import (
	"cmp"
	"context"
	"flag"
	"io"
	"reflect"
	"strings"
	"sync"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// jobLog is a job's output for programs; what it came to is told by who followed
// it to its end.
type jobLog struct {
	Job      string `json:"job"`
	Log      string `json:"log"`
	State    string `json:"state,omitempty"`
	ExitCode *int   `json:"exit_code,omitempty"`
}

func jobLogsCommand() cli.Command {
	var q client.LogQuery
	var tail cli.Count
	var follow bool
	return cli.Command{
		Name: "job logs", Args: "JOB", Synopsis: "print a job's output", MinArgs: 1, MaxArgs: 1,
		Help: `
Prints what the agent wrote, as far as it has arrived. With -f it goes on until
the job has ended, says what came of it on standard error, and ends with the
job's code as job run does: that is how an interrupted job run is taken up
again. With --json the text is one string in an object.`,
		Answers: []cli.Answer{cli.AnswerOf[jobLog]("job-log")},
		Flags: func(fs *flag.FlagSet) {
			fs.Var(&tail, "tail", "only the last `lines` (default: all)")
			fs.BoolVar(&follow, "f", false, "follow until the job has ended")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			q.Tail = tail.N
			c, err := connect(env)
			if err != nil {
				return err
			}
			defer c.Close()
			var text strings.Builder
			out := forPeople(env.Out)
			if env.Global.JSON {
				out = &text
			}
			if follow {
				if err := c.FollowLog(ctx, args[0], q, out); err != nil {
					return ours(ctx, quiet(ctx, err))
				}
				return ours(ctx, jobCame(ctx, env, c, args[0], &text))
			}
			err = copyLog(ctx, c, args[0], q, out)
			if err != nil || !env.Global.JSON {
				return err
			}
			return show(env, jobLog{Job: args[0], Log: text.String()}, nil)
		},
	}
}

// jobCame tells what came of a job that was followed to its end.
func jobCame(ctx context.Context, env *cli.Env, c *client.Client, id string, text *strings.Builder) error {
	job, err := c.Job(ctx, id, 0)
	if err != nil {
		return err
	}
	err = show(env, jobLog{job.ID, text.String(), job.State, job.ExitCode}, func(io.Writer) { printResult(env, job) })
	return cmp.Or(err, jobExit(job))
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
	l := &sandboxLogs{}
	tail := cli.Count{N: 100, Most: eventsTailMax}
	var follow bool
	return cli.Command{
		Name: "logs", Args: "SANDBOX", Synopsis: "print a sandbox's events and its job's output", MinArgs: 1, MaxArgs: 1,
		Help: `
Prints the sandbox's events and what its job's agent wrote. With -f it goes on
until the sandbox is destroyed. With --json the output is an object with both;
with -f too, one event per line and no agent output.`,
		Answers: []cli.Answer{cli.AnswerOf[sandboxLog]("sandbox-log"), {Name: "event", Type: reflect.TypeFor[api.Event](), Lines: true}},
		Flags: func(fs *flag.FlagSet) {
			fs.Var(&tail, "tail", "only the last events and `lines`")
			fs.BoolVar(&follow, "f", false, "follow")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			l.tail = tail.N
			c, err := connect(env)
			if err != nil {
				return err
			}
			s, err := c.Sandbox(ctx, args[0])
			if err != nil {
				return err
			}
			l.env, l.c, l.s = env, c, s
			if follow && s.State != string(lab.SandboxDestroyed) {
				return quiet(ctx, l.follow(ctx))
			}
			return l.print(ctx, follow)
		},
	}
}

// sandboxLog is both for programs.
type sandboxLog struct {
	Events []api.Event `json:"events"`
	Log    string      `json:"log"`
}

// sandboxLogs shows events and agent output of one sandbox.
type sandboxLogs struct {
	tail int
	env  *cli.Env
	c    *client.Client
	s    api.Sandbox
}

// print shows what there is; for programs one event per line if they wanted to
// follow.
func (l *sandboxLogs) print(ctx context.Context, follow bool) error {
	events, err := l.c.SandboxEvents(ctx, l.s.ID, l.tail)
	if err != nil {
		return err
	}
	if follow && l.env.Global.JSON {
		for _, e := range events {
			err = cmp.Or(err, l.event(l.env.Out, e))
		}
		return err
	}
	var text strings.Builder
	out := forPeople(l.env.Out)
	if l.env.Global.JSON {
		out = &text
	} else {
		for _, e := range events {
			printEvent(out, e)
		}
	}
	if l.s.JobID != "" {
		err := copyLog(ctx, l.c, l.s.JobID, client.LogQuery{Tail: l.tail}, out)
		if err != nil && fault.ClassOf(err) != fault.NotFound {
			return err
		}
	}
	if !l.env.Global.JSON {
		return nil
	}
	return show(l.env, sandboxLog{append([]api.Event{}, events...), text.String()}, nil)
}

// follow shows both as they come, one write at a time.
func (l *sandboxLogs) follow(ctx context.Context) error {
	events, err := l.c.SandboxEvents(ctx, l.s.ID, l.tail)
	if err != nil {
		return err
	}
	out := &oneByOne{w: l.env.Out}
	var last int64
	gone := false // since its state was read
	for _, e := range events {
		if err := l.event(out, e); err != nil {
			return err
		}
		last, gone = e.ID, gone || isEnd(e)
	}
	var wait sync.WaitGroup
	logCtx, stop := context.WithCancel(ctx)
	defer wait.Wait()
	defer stop()
	text := make(chan error, 1)
	if l.s.JobID != "" && !l.env.Global.JSON {
		wait.Go(func() {
			w := io.Writer(out)
			if isTerminal(l.env.Out) {
				w = &screen{w: out}
			}
			text <- l.c.FollowLog(logCtx, l.s.JobID, client.LogQuery{Tail: l.tail}, w)
		})
	} else {
		text <- nil
	}
	if !gone {
		if err := l.untilEnd(ctx, out, last); err != nil {
			return err
		}
	}
	return <-text // with the sandbox the job has ended
}

// untilEnd shows events until one tells that the sandbox is destroyed.
func (l *sandboxLogs) untilEnd(ctx context.Context, out io.Writer, after int64) error {
	for e, err := range l.c.Events(ctx, client.EventQuery{After: &after, SandboxID: l.s.ID}) {
		if err != nil {
			return err
		}
		if err := l.event(out, e); err != nil || isEnd(e) {
			return err
		}
	}
	return nil
}

func isEnd(e api.Event) bool {
	return e.Type == lab.EventSandboxChanged && e.Fields["to"] == string(lab.SandboxDestroyed)
}

func (l *sandboxLogs) event(w io.Writer, e api.Event) error {
	if l.env.Global.JSON {
		return writeJSON(w, e, "")
	}
	printEvent(w, e)
	return nil
}

// oneByOne lets one write through at a time.
type oneByOne struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *oneByOne) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}
