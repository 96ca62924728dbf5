package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
)

func sandboxListCommand(name string) cli.Command {
	var all bool
	return cli.Command{
		Name: name, Synopsis: "list sandboxes",
		Help: `
Lists the sandboxes that live, and with --all also those that are destroyed.`,
		Answers: []cli.Answer{listing[api.Sandbox]("sandboxes")},
		Flags:   func(fs *flag.FlagSet) { fs.BoolVar(&all, "all", false, "also those that are destroyed") },
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			list, err := c.Sandboxes(ctx, client.SandboxQuery{All: all})
			if err != nil {
				return err
			}
			return show(env, listed("sandboxes", list), func(w io.Writer) {
				var rows [][]string
				for _, s := range list {
					rows = append(rows, []string{vmid(s.VMID), s.Name, s.State, s.Address, s.Profile, s.JobID, age(time.Since(s.CreatedAt))})
				}
				table(w, []string{"VMID", "NAME", "STATE", "ADDRESS", "PROFILE", "JOB", "AGE"}, rows)
			})
		},
	}
}

func vmid(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func sandboxShowCommand() cli.Command {
	return cli.Command{
		Name: "sandbox show", Args: "SANDBOX", Synopsis: "show one sandbox by VMID, name or id",
		MinArgs: 1, MaxArgs: 1,
		Help: `
Shows a sandbox, also a destroyed one, and the step of what is being done to it.
The host key is the one that the guest reported.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Sandbox]("sandbox")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			s, err := c.Sandbox(ctx, args[0])
			if err != nil {
				return err
			}
			var open []api.Operation
			if !env.Global.JSON && lab.SandboxState(s.State).Live() { // programs ask for operations themselves
				if open, err = c.Operations(ctx, client.OperationQuery{SandboxID: s.ID, Open: true}); err != nil {
					return err
				}
			}
			return show(env, s, func(w io.Writer) {
				printSandbox(w, s)
				printUnderWay(w, open)
			})
		},
	}
}

// printUnderWay tells what is being done to a sandbox, the oldest first.
func printUnderWay(w io.Writer, open []api.Operation) {
	if len(open) > 0 {
		fmt.Fprintln(w, "\nunder way:")
	}
	for _, o := range slices.Backward(open) {
		text := o.Kind
		if o.Step != "" {
			text += ", step " + o.Step
		}
		if o.UpdatedAt != nil {
			text += " since " + timeText(o.UpdatedAt) + " (" + age(time.Since(*o.UpdatedAt)) + ")"
		}
		fmt.Fprintf(w, "%s; agentlab operation show %s\n", oneLine(text), oneLine(o.ID))
	}
}

func printSandbox(w io.Writer, s api.Sandbox) {
	keep := ""
	if s.Keep {
		keep = "yes"
	}
	fields(w,
		"vmid", vmid(s.VMID), "name", s.Name, "id", s.ID, "state", s.State, "reason", s.Reason,
		"profile", s.Profile, "template", s.Template, "address", s.Address, "mac", s.MAC,
		"network", s.Network, "cores", fmt.Sprint(s.Cores), "memory", fmt.Sprintf("%d MiB", s.MemoryMB),
		"job", s.JobID, "keep", keep, "host key", s.HostKey, "created", timeText(&s.CreatedAt),
		"ready", timeText(s.ReadyAt), "expires", timeText(s.ExpiresAt), "ended", timeText(s.EndedAt),
	)
}
