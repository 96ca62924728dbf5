package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
)

func profileListCommand() cli.Command {
	return cli.Command{
		Name: "profile list", Synopsis: "list the profiles, and what is wrong with others",
		Help: `
Lists the profiles that jobs and sandboxes can be made from, as the daemon
reads them now, and with file and line what it skipped or what has no effect.
Whether a profile's template and bundle are there tells agentlab profile check.`,
		Answers: []cli.Answer{cli.AnswerOf[profileList]("profiles")},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			p, err := c.Profiles(ctx)
			if err != nil {
				return err
			}
			both := profileList{append([]api.Profile{}, p.Items...), append([]string{}, p.Problems...)}
			return show(env, both, func(w io.Writer) { printProfiles(w, p) })
		},
	}
}

// profileList is what is usable and what is wrong, for programs.
type profileList struct {
	Profiles []api.Profile `json:"profiles"`
	Problems []string      `json:"problems"`
}

func printProfiles(w io.Writer, p api.Profiles) {
	var rows [][]string
	for _, one := range p.Items {
		agent := one.AgentCommand
		if one.AgentMode == "dangerous" {
			agent += " (dangerous)"
		}
		rows = append(rows, []string{
			one.Name, one.Template, fmt.Sprint(one.Cores), fmt.Sprintf("%d MiB", one.MemoryMB), one.NetworkMode,
			one.SecretsBundle, clip(agent, 40), one.OnJobEnd, span(time.Duration(one.TTLSeconds) * time.Second),
		})
	}
	table(w, []string{"PROFILE", "TEMPLATE", "CORES", "MEMORY", "NETWORK", "BUNDLE", "AGENT", "ON END", "TTL"}, rows)
	if len(p.Problems) > 0 {
		fmt.Fprintln(w, "\nproblems:")
		for _, line := range p.Problems {
			fmt.Fprintln(w, "  "+oneLine(line))
		}
	}
}
