package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
)

func operationShowCommand() cli.Command {
	return cli.Command{
		Name: "operation show", Args: "OPERATION", Synopsis: "show one operation, its steps and why one failed", MinArgs: 1, MaxArgs: 1,
		Help: `
Shows how far an operation is, how often its present step was tried, when it is
tried again, what failed last and what can be done about it.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Operation]("operation")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			o, err := c.Operation(ctx, args[0])
			if err != nil {
				return err
			}
			return show(env, o, func(w io.Writer) { printOperation(w, o) })
		},
	}
}

func printOperation(w io.Writer, o api.Operation) {
	attempt := ""
	if o.Attempt > 0 {
		attempt = fmt.Sprint(o.Attempt)
	}
	cancel := ""
	if o.CancelRequested {
		cancel = "requested"
	}
	if o.EndedAt != nil {
		o.Deadline = nil // was the last step's
	}
	fields(w,
		"operation", o.ID, "kind", o.Kind, "state", o.State, "step", o.Step, "attempt", attempt, "cancel", cancel,
		"sandbox", o.SandboxID, "job", o.JobID, "created", timeText(&o.CreatedAt), "updated", timeText(o.UpdatedAt),
		"step ends by", timeText(o.Deadline), "tried again", timeText(o.RetryAt), "ended", timeText(o.EndedAt),
		"class", o.Class,
	)
	if o.Error != "" { // may be of several lines: a guest's console
		fmt.Fprintln(w, "\nerror:", lines(o.Error))
	}
	if o.Hint != "" {
		fmt.Fprintln(w, "hint:", lines(o.Hint))
	}
	if len(o.Steps) == 0 {
		return
	}
	var rows [][]string
	for _, s := range o.Steps {
		attempt, took := "", ""
		if s.Attempt > 0 {
			attempt = fmt.Sprint(s.Attempt)
		}
		if s.TookMS > 0 {
			took = (time.Duration(s.TookMS) * time.Millisecond).String()
		}
		rows = append(rows, []string{s.Name, s.State, attempt, took, clip(s.Error, 70)})
	}
	fmt.Fprintln(w)
	table(w, []string{"STEP", "STATE", "ATTEMPT", "TOOK", "ERROR"}, rows)
}
