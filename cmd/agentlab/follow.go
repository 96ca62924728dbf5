package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// follower shows a job until it has ended, and what came of it.
type follower struct {
	c     *client.Client
	p     *progress
	env   *cli.Env
	whole bool // the sandbox is the job's: wait for what on_job_end does to it
}

// afterwards is how long the end of the sandbox is waited for; the job's result
// does not depend on it.
const afterwards = 30 * time.Second

func (f *follower) follow(ctx context.Context, job api.Job) error {
	out := f.env.Out
	if f.env.Global.JSON {
		out = f.env.Err
	}
	logs := make(chan error, 1)
	var wait sync.WaitGroup
	logCtx, stopLog := context.WithCancel(ctx)
	defer wait.Wait()
	defer stopLog()
	wait.Go(func() {
		logs <- f.c.FollowLog(logCtx, job.ID, client.LogQuery{}, f.p.beside(out))
	})
	settled, err := f.events(ctx, job)
	if err != nil {
		return f.interrupted(ctx, job, err)
	}
	if err := <-logs; err != nil && ctx.Err() == nil {
		return f.interrupted(ctx, job, err)
	}
	// The job has ended: a signal that comes now only hurries this program.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	done, err := f.c.Job(last, job.ID, 0)
	if err != nil {
		return f.interrupted(ctx, job, err)
	}
	f.p.stop()
	err = f.result(done)
	if !settled {
		fmt.Fprintf(f.env.Err, "its sandbox is still being put away: agentlab sandbox show %s\n", cmp.Or(vmid(job.VMID), job.SandboxID))
	}
	return err
}

// events shows what happens until the job has ended, and where the sandbox is
// the job's, until nothing is done to that any more: settled. It does not wait
// for that after a signal, or for long.
func (f *follower) events(ctx context.Context, job api.Job) (settled bool, err error) {
	var oldest int64
	q := client.EventQuery{After: &oldest, JobID: job.ID}
	if f.whole {
		q = client.EventQuery{After: &oldest, SandboxID: job.SandboxID}
	}
	ended := false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for e, err := range f.c.Events(ctx, q) {
		if err != nil {
			if ended {
				return false, nil
			}
			return false, err
		}
		f.p.event(e)
		switch {
		case e.Type == lab.EventJobChanged && e.JobID == job.ID && lab.JobState(e.Fields["to"]).Ended():
			ended = true
			if !f.whole {
				return true, nil
			}
			defer time.AfterFunc(afterwards, cancel).Stop()
		case ended && e.Type == lab.EventSandboxChanged:
			f.p.state("sandbox", e.Fields["to"])
		case ended && e.Type == lab.EventOperationEnded && f.last(ctx, job, e.Operation):
			return true, nil
		}
	}
	return false, nil
}

// last reports whether the operation that ended is the sandbox's newest. That
// none is open would not do: a newer one may have ended, its events still to come.
func (f *follower) last(ctx context.Context, job api.Job, ended string) bool {
	newest, err := f.c.Operations(ctx, client.OperationQuery{SandboxID: job.SandboxID, Limit: 1})
	return err == nil && len(newest) == 1 && newest[0].ID == ended
}

func (f *follower) interrupted(ctx context.Context, job api.Job, err error) error {
	f.p.stop()
	hint := fmt.Sprintf("follow it with: %s    end it with: %s", next(f.env, "job logs -f", job.ID), next(f.env, "job cancel", job.ID))
	if ctx.Err() == nil {
		return &exitError{exitOurs, fault.New(fault.ClassOf(err), "follow job %s: %w", job.ID, err).WithHint("the job goes on; %s", hint)}
	}
	return &exitError{exitCancelled, fault.New(fault.Unavailable, "stopped following; the job goes on").WithHint("%s", hint)}
}

// result prints the end of the job and turns its state into the exit code.
func (f *follower) result(job api.Job) error {
	if f.env.Global.JSON {
		if err := show(f.env, job, nil); err != nil {
			return err
		}
	} else {
		printResult(f.env, job)
	}
	return jobExit(job)
}

func printResult(env *cli.Env, job api.Job) {
	w := env.Err
	fmt.Fprintln(w)
	fields(w, "job", job.ID, "state", job.State, "reason", job.Reason, "exit code", exitText(job), "commit", madeCommit(job))
	fetch, about := "", "its commits, as branch agentlab/"+job.ID
	var rows [][]string
	for _, a := range job.Artifacts {
		rows = append(rows, []string{a.Path, bytesText(a.Size), a.Flagged})
		if a.Path != guestapi.ArtifactChanges {
			continue
		}
		if fetch = "job fetch"; a.Flagged != "" {
			fetch, about = "job fetch --with-secrets", about+"; look at them before you push"
		}
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, []string{"ARTIFACT", "SIZE", "FLAGGED"}, rows)
	}
	var offers []string
	if len(rows) == 0 || lab.JobState(job.State) != lab.JobCompleted {
		offers = append(offers, next(env, "job logs", job.ID))
	}
	if len(rows) > 0 {
		offers = append(offers, next(env, "job artifacts download", job.ID))
	}
	if fetch != "" {
		offers = append(offers, fmt.Sprintf("%s    (%s)", next(env, fetch, job.ID), about))
	}
	fmt.Fprintf(w, "\nnext: %s\n", strings.Join(offers, "\n      "))
}

// madeCommit is the commit that the job ended with, or "" when it brought none back:
// then it is the one that it began with.
func madeCommit(job api.Job) string {
	if slices.ContainsFunc(job.Artifacts, func(a api.Artifact) bool { return a.Path == guestapi.ArtifactChanges }) {
		return job.Commit
	}
	return ""
}

// jobExit is nil for a completed job.
func jobExit(job api.Job) error {
	switch lab.JobState(job.State) {
	case lab.JobCompleted:
		return nil
	case lab.JobTimeout:
		return &exitError{code: exitTimedOut}
	case lab.JobCancelled:
		return &exitError{code: exitCancelled}
	case lab.JobFailed:
		if job.ExitCode != nil && *job.ExitCode > 0 && *job.ExitCode < 256 {
			return &exitError{code: *job.ExitCode}
		}
	}
	return &exitError{code: exitOurs}
}
