package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/version"
)

func statusCommand() cli.Command {
	return cli.Command{
		Name: "status", Synopsis: "show the daemon, its plugins and what it holds",
		Help: `
Shows the daemon's version and plugins, how many sandboxes and jobs there are in
which state, the space that artifacts take, what is wrong with the configuration
or the plugins, and the operations that failed last.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Status]("status")},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			return show(env, s, func(w io.Writer) { printStatus(w, s) })
		},
	}
}

func printStatus(w io.Writer, s api.Status) {
	fields(w,
		"daemon", fmt.Sprintf("agentlabd %s, up %s", s.Version, age(time.Since(s.StartedAt))),
		"sandboxes", counts(s.Sandboxes),
		"jobs", counts(s.Jobs),
		"artifacts", fmt.Sprintf("%s, %s free", bytesText(s.ArtifactBytes), bytesText(s.DiskFreeBytes)),
	)
	fmt.Fprintln(w)
	printPlugins(w, s.Plugins)
	if len(s.Problems) > 0 {
		fmt.Fprintln(w, "\nproblems:")
		for _, p := range s.Problems {
			fmt.Fprintln(w, "  "+oneLine(p))
		}
	}
	if len(s.FailedOperations) > 0 {
		fmt.Fprintln(w, "\nlast failures:")
		for _, o := range s.FailedOperations {
			fmt.Fprintln(w, "  "+oneLine(fmt.Sprintf("%s  %s: %s", timeText(o.EndedAt), o.Kind, o.Error)))
		}
	}
}

func counts(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", m[k], strings.ToLower(k)))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func pluginListCommand() cli.Command {
	return cli.Command{
		Name: "plugin list", Synopsis: "list the configured plugins and how they are",
		Help: `
Lists the plugins that the daemon's configuration names, with the state of each
process, since when, and why it is not well.`,
		Answers: []cli.Answer{listing[api.Plugin]("plugins")},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			list, err := c.Plugins(ctx)
			if err != nil {
				return err
			}
			return show(env, listed("plugins", list), func(w io.Writer) { printPlugins(w, list) })
		},
	}
}

func printPlugins(w io.Writer, list []api.Plugin) {
	var rows [][]string
	for _, p := range list {
		since := ""
		if !p.Since.IsZero() {
			since = age(time.Since(p.Since))
		}
		rows = append(rows, []string{p.Kind, p.Name, p.Version, p.State, since, p.Message})
	}
	table(w, []string{"KIND", "PLUGIN", "VERSION", "STATE", "SINCE", "REASON"}, rows)
}

func versionCommand() cli.Command {
	return cli.Command{
		Name: "version", Synopsis: "print the version",
		Help:    "Prints the version of this program; agentlab status tells the daemon's.",
		Answers: []cli.Answer{cli.AnswerOf[versions]("version")},
		Run: func(_ context.Context, env *cli.Env, _ []string) error {
			return show(env, versions{version.String()}, func(w io.Writer) { fmt.Fprintln(w, "agentlab", version.String()) })
		},
	}
}

type versions struct {
	Version string `json:"version"`
}
