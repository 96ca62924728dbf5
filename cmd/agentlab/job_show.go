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
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// listMax is the most that the daemon lists at once.
const listMax = 1000

func jobListCommand() cli.Command {
	var q client.JobQuery
	limit := cli.Count{Most: listMax}
	return cli.Command{
		Name: "job list", Synopsis: "list jobs, newest first",
		Help:    "Lists the newest jobs.",
		Answers: []cli.Answer{listing[api.Job]("jobs")},
		Flags: func(fs *flag.FlagSet) {
			fs.Var(&limit, "limit", "how many at most, a `number` up to 1000 (default: 100)")
		},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			q.Limit = limit.N
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
		Help: `
Shows how a job stands or ended, what it left behind, and what happened last:
of its steps the ends, and no artifacts, which are listed before. With --json
the events are the newest of all kinds; agentlab events --job has every one.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Job]("job")},
		Flags:   func(fs *flag.FlagSet) { fs.IntVar(&tail, "events-tail", 10, "how many events, a `number`") },
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			if tail < 0 || tail > eventsTailMax {
				return fault.New(fault.Invalid, "--events-tail: %d is not between 0 and %d", tail, eventsTailMax)
			}
			ask := tail
			if !env.Global.JSON { // about half are left out
				ask = min(4*tail, eventsTailMax)
			}
			j, err := c.Job(ctx, args[0], ask)
			if err != nil {
				return err
			}
			return show(env, j, func(w io.Writer) {
				j.Events = telling(j.Events, tail)
				printJob(w, j)
			})
		},
	}
}

// telling are the last events but those that another one, or the list of
// artifacts, says better.
func telling(all []api.Event, last int) []api.Event {
	out := slices.DeleteFunc(slices.Clone(all), func(e api.Event) bool {
		return slices.Contains([]string{lab.EventStepStarted, lab.EventStepProgressed, lab.EventArtifactStored}, e.Type)
	})
	return out[max(0, len(out)-last):]
}

// repoText is where a job's repository came from. The id of an upload says
// nothing to people.
func repoText(j api.Job) string {
	if strings.HasPrefix(j.Repo, "repo_") {
		return "a local one, uploaded"
	}
	return j.Repo
}

func printJob(w io.Writer, j api.Job) {
	fields(w,
		"job", j.ID, "state", j.State, "reason", j.Reason, "stage", j.Stage, "exit code", exitText(j),
		"task", j.Task, "profile", j.Profile, "repository", repoText(j), "ref", j.Ref, "commit", madeCommit(j),
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
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s  %-20s %s", eventTime(e), oneLine(e.Type), oneLine(eventText(e))), " "))
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
		if f["undo"] == "true" {
			what = "undo " + what
		}
		parts = append(parts, what)
	}
	if t := took(f["took_ms"]); t != "" {
		parts = append(parts, t)
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
		return strings.Join(parts, ", ")
	}
	for _, k := range []string{"from", "to", "step", "took_ms", "kind", "hint", "class", "undo"} {
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
there is; one that does not stop is stopped from outside after a while. Asking
again changes nothing; a job that ended in another way is not cancelled any
more, which is code 5.`,
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
				if a.Job != nil && a.Job.EndedAt != nil {
					fmt.Fprintf(env.Err, "%s was cancelled before\n", args[0])
					return
				}
				fmt.Fprintf(env.Err, "asked %s to stop; its end shows in: %s\n", args[0], next(env, "job show", args[0]))
			})
		},
	}
}
