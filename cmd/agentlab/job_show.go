package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
)

func jobListCommand() cli.Command {
	var q client.JobQuery
	return cli.Command{
		Name: "job list", Synopsis: "list jobs, newest first",
		Help:    "Lists the newest jobs, at most 100 unless --limit says otherwise.",
		Answers: []cli.Answer{listing[api.Job]("jobs")},
		Flags:   func(fs *flag.FlagSet) { fs.IntVar(&q.Limit, "limit", 0, "how many at most, a `number`") },
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			list, err := c.Jobs(ctx, q)
			if err != nil {
				return err
			}
			return show(env, listed("jobs", list), func(w io.Writer) {
				var rows [][]string
				for _, j := range list {
					rows = append(rows, []string{j.ID, j.State, vmid(j.VMID), j.Profile, exitText(j), age(time.Since(j.CreatedAt)), clip(j.Task, 50)})
				}
				table(w, []string{"JOB", "STATE", "VMID", "PROFILE", "EXIT", "AGE", "TASK"}, rows)
			})
		},
	}
}

func exitText(j api.Job) string {
	if j.ExitCode == nil {
		return ""
	}
	return fmt.Sprint(*j.ExitCode)
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func jobShowCommand() cli.Command {
	var tail int
	return cli.Command{
		Name: "job show", Args: "JOB", Synopsis: "show one job, its artifacts and events", MinArgs: 1, MaxArgs: 1,
		Help:    "Shows how a job stands or ended, what it left behind, and what happened last.",
		Answers: []cli.Answer{cli.AnswerOf[api.Job]("job")},
		Flags:   func(fs *flag.FlagSet) { fs.IntVar(&tail, "events-tail", 10, "how many events, a `number`") },
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			j, err := c.Job(ctx, args[0], tail)
			if err != nil {
				return err
			}
			return show(env, j, func(w io.Writer) { printJob(w, j) })
		},
	}
}

func printJob(w io.Writer, j api.Job) {
	fields(w,
		"job", j.ID, "state", j.State, "reason", j.Reason, "stage", j.Stage, "exit code", exitText(j),
		"task", j.Task, "profile", j.Profile, "repository", j.Repo, "ref", j.Ref, "commit", j.Commit,
		"sandbox", j.SandboxID, "vmid", vmid(j.VMID), "created", timeText(&j.CreatedAt), "started", timeText(j.StartedAt),
		"deadline", timeText(j.Deadline), "ended", timeText(j.EndedAt), "log", bytesText(j.LogBytes),
	)
	if len(j.Artifacts) > 0 {
		fmt.Fprintln(w, "\nartifacts:")
		printArtifacts(w, j.Artifacts)
	}
	if len(j.Events) > 0 {
		fmt.Fprintln(w, "\nevents:")
		for _, e := range j.Events {
			printEvent(w, e)
		}
	}
}

func printArtifacts(w io.Writer, list []api.Artifact) {
	var rows [][]string
	for _, a := range list {
		rows = append(rows, []string{a.Path, bytesText(a.Size), fmt.Sprintf("%.12s", a.SHA256), a.Flagged})
	}
	table(w, []string{"PATH", "SIZE", "SHA256", "FLAGGED"}, rows)
}

func printEvent(w io.Writer, e api.Event) {
	fmt.Fprintf(w, "%s  %-20s %s\n", eventTime(e), oneLine(e.Type), oneLine(eventText(e)))
}

func eventTime(e api.Event) string { return e.At.Local().Format("2006-01-02 15:04:05.000") }

// eventText is an event's message, or what its fields say.
func eventText(e api.Event) string {
	f := maps.Clone(e.Fields)
	var parts []string
	if to := f["to"]; to != "" {
		parts = append(parts, cmp.Or(f["from"], "new")+" → "+to)
	}
	if what := cmp.Or(f["step"], f["kind"]); what != "" {
		parts = append(parts, what)
	}
	if t := took(f["took_ms"]); t != "" {
		parts = append(parts, t)
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
		return strings.Join(parts, ", ")
	}
	for _, k := range []string{"from", "to", "step", "took_ms", "kind", "hint", "class"} {
		delete(f, k)
	}
	for _, k := range slices.Sorted(maps.Keys(f)) {
		if f[k] != "" {
			parts = append(parts, k+" "+f[k])
		}
	}
	return strings.Join(parts, ", ")
}

func jobCancelCommand() cli.Command {
	return cli.Command{
		Name: "job cancel", Args: "JOB", Synopsis: "ask a job to stop; its artifacts so far are kept", MinArgs: 1, MaxArgs: 1,
		Help: `
Asks the guest to stop the agent and returns at once. The guest uploads what
there is; one that does not stop is stopped from outside after a while.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Accepted]("accepted")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			a, err := c.CancelJob(ctx, args[0])
			if err != nil {
				return err
			}
			return show(env, a, func(io.Writer) {
				fmt.Fprintf(env.Err, "asked %s to stop; its end shows in: agentlab job show %s\n", args[0], args[0])
			})
		},
	}
}
