package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
)

func operationListCommand() cli.Command {
	var q client.OperationQuery
	limit := cli.Count{Most: listMax}
	return cli.Command{
		Name: "operation list", Synopsis: "list what the daemon does and did, newest first",
		Help: `
Lists the newest operations: each is one piece of work on a sandbox, done step
by step.`,
		Answers: []cli.Answer{listing[api.Operation]("operations")},
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&q.Open, "open", false, "only those that have not ended")
			fs.StringVar(&q.SandboxID, "sandbox", "", "only on this `sandbox`, by VMID, name or id")
			fs.StringVar(&q.JobID, "job", "", "only for this `job`")
			fs.Var(&limit, "limit", "how many at most, a `number` up to 1000 (default: 100)")
		},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			q.Limit = limit.N
			list, err := c.Operations(ctx, q)
			if err != nil {
				return err
			}
			return show(env, listed("operations", list), func(w io.Writer) { printOperations(w, list) })
		},
	}
}

func printOperations(w io.Writer, list []api.Operation) {
	var rows [][]string
	for _, o := range list {
		attempt, reason := "", o.Error
		if o.Attempt > 0 {
			attempt = fmt.Sprint(o.Attempt)
		}
		if o.CancelRequested && o.EndedAt == nil {
			reason = "cancel requested"
		}
		reason, _, _ = strings.Cut(reason, "\n")
		rows = append(rows, []string{o.ID, o.Kind, o.State, o.Step, attempt, o.SandboxID, o.JobID, age(time.Since(o.CreatedAt)), clip(reason, 60)})
	}
	table(w, []string{"OPERATION", "KIND", "STATE", "STEP", "ATTEMPT", "SANDBOX", "JOB", "AGE", "ERROR"}, rows)
}
