package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/sdk/fault"
)

type jobRun struct {
	name   string // of the command
	repo   string
	ttl    cli.Duration
	dirty  bool
	detach bool
	req    api.JobCreate
}

func jobRunCommand() cli.Command {
	r := &jobRun{name: "job run"}
	return cli.Command{
		Name: "job run", Synopsis: "run an agent on a repository in a sandbox",
		Help: `
Makes a sandbox from the profile, gives it the repository and the task, and
follows the job: stages on standard error, the agent's output on standard
output. Ctrl-C stops following; the job goes on, and agentlab job logs -f takes
it up again. Before there is a job, Ctrl-C leaves nothing behind.

--repo takes a URL that the sandbox can reach, or a local path: then the
repository travels with the request and no git server is needed.

With --sandbox the job runs in a sandbox that is ready, by its VMID, name or id,
and the sandbox stays.

The exit code is the agent's; 124 after the deadline, 125 when AgentLab failed,
130 when it was cancelled or following was stopped. With --detach it is 0 once
the job is accepted. With --json the agent's output goes to standard error too,
and standard output has the job as it ended.`,
		Answers: []cli.Answer{cli.AnswerOf[api.Job]("job")},
		Flags:   r.flags,
		Run:     r.run,
	}
}

func (r *jobRun) flags(fs *flag.FlagSet) {
	fs.StringVar(&r.repo, "repo", "", "`repository`: a git URL, or the path of a local one (required)")
	fs.StringVar(&r.req.Task, "task", "", "what the agent shall do, a `text` (required)")
	fs.StringVar(&r.req.Profile, "profile", "", "`profile` of the sandbox (required without --sandbox)")
	fs.StringVar(&r.req.Sandbox, "sandbox", "", "run in this ready `sandbox` instead of a new one")
	fs.StringVar(&r.req.Ref, "ref", "", "branch, tag or `commit` to begin from (default: HEAD)")
	fs.StringVar(&r.req.Mode, "mode", "", "agent `mode`: default or dangerous (default: the profile's)")
	fs.Var(&r.ttl, "ttl", "longest run, a `duration` or minutes (default: the profile's)")
	fs.BoolVar(&r.req.Keep, "keep", false, "keep the sandbox after the job")
	fs.BoolVar(&r.dirty, "dirty", false, "take uncommitted changes of a local repository along")
	fs.BoolVar(&r.detach, "detach", false, "do not follow the job")
}

func (r *jobRun) run(ctx context.Context, env *cli.Env, _ []string) error {
	if err := r.check(); err != nil {
		return err
	}
	err := r.start(ctx, env)
	if r.detach { // there is no code of an agent to tell from ours
		return err
	}
	return ours(ctx, err)
}

func (r *jobRun) start(ctx context.Context, env *cli.Env) error {
	c, err := connect(env)
	if err != nil {
		return err
	}
	defer c.Close()
	r.req.TTLSeconds = r.ttl.Seconds()
	p := newProgress(env, c)
	defer p.stop()
	if err := r.acceptable(ctx, c); err != nil {
		return r.notStarted(ctx, err)
	}
	if err := r.giveRepo(ctx, c, p); err != nil {
		return r.notStarted(ctx, err)
	}
	job, err := r.submit(ctx, env, c)
	if err != nil {
		r.takeBack(ctx, c)
		return err
	}
	if r.detach {
		p.stop()
		return show(env, job, func(w io.Writer) {
			fmt.Fprintln(w, job.ID)
			fmt.Fprintf(env.Err, "next: %s    %s\n", next(env, "job logs -f", job.ID), next(env, "job cancel", job.ID))
		})
	}
	p.line("queued", job.ID+" in sandbox "+cmp.Or(vmid(job.VMID), job.SandboxID))
	f := follower{c: c, p: p, env: env, whole: r.req.Sandbox == "" && !r.req.Keep}
	return f.follow(ctx, job)
}

// notStarted says what came of an interrupted command line without a job.
func (r *jobRun) notStarted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	none := fault.New(fault.Unavailable, "interrupted before there was a job; nothing was started and nothing is left")
	if r.req.RepoID != "" {
		none = fault.New(fault.Unavailable, "interrupted before there was a job; nothing was started").
			WithHint("the daemon removes the uploaded repository, since no job takes it")
	}
	return &exitError{exitCancelled, none}
}

// submit asks for the job. A signal does not cut the question off: until the
// answer is there nobody knows whether there is a job.
func (r *jobRun) submit(ctx context.Context, env *cli.Env, c *client.Client) (api.Job, error) {
	if ctx.Err() != nil {
		return api.Job{}, r.notStarted(ctx, ctx.Err())
	}
	stop := context.AfterFunc(ctx, func() {
		fmt.Fprintln(env.Err, "waiting for the daemon to say whether there is a job; Ctrl-C again does not wait")
	})
	defer stop()
	accepted, err := c.CreateJob(context.WithoutCancel(ctx), r.req)
	switch {
	case err == nil:
		return *accepted.Job, nil
	case ctx.Err() != nil:
		return api.Job{}, &exitError{exitCancelled, fault.New(fault.ClassOf(err), "interrupted while asking for the job: %w", err).
			WithHint("%s", cmp.Or(fault.HintOf(err), "agentlab job list shows whether there is one"))}
	}
	return api.Job{}, err
}

func (r *jobRun) check() error {
	missing := func(flag, what string) error {
		return fault.New(fault.Invalid, "%s --%s is missing", what, flag).WithHint("agentlab %s --repo . --task \"what to do\" --profile NAME", r.name)
	}
	switch {
	case r.repo == "":
		return missing("repo", "which repository?")
	case strings.TrimSpace(r.req.Task) == "":
		return missing("task", "what shall the agent do?")
	case r.req.Profile == "" && r.req.Sandbox == "":
		return missing("profile", "which profile?")
	case r.req.Sandbox != "" && (r.req.Profile != "" || r.req.Keep):
		return fault.New(fault.Invalid, "--sandbox goes without --profile and --keep: the sandbox has a profile, and stays")
	case r.req.Mode != "" && r.req.Mode != "default" && r.req.Mode != "dangerous":
		return fault.New(fault.Invalid, "--mode: %q is neither default nor dangerous", r.req.Mode).
			WithHint("leave --mode out for the profile's; dangerous lets the agent do everything without asking")
	case isURL(r.repo) && r.dirty:
		return fault.New(fault.Invalid, "--dirty goes with a local repository")
	}
	return nil
}

// isURL tells URLs and scp forms from local paths, as git does.
func isURL(repo string) bool {
	if strings.Contains(repo, "://") {
		return true
	}
	host, _, scp := strings.Cut(repo, ":")
	return scp && !strings.Contains(host, "/")
}

// giveRepo puts the repository into the request, uploading a local one.
func (r *jobRun) giveRepo(ctx context.Context, c *client.Client, p *progress) error {
	if isURL(r.repo) {
		r.req.RepoURL = r.repo
		return nil
	}
	p.running("pack " + r.repo)
	defer p.running("")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	type packed struct {
		meta gitrepo.Meta
		err  error
	}
	done := make(chan packed, 1)
	go func() {
		meta, err := gitrepo.Pack(ctx, r.repo, gitrepo.PackOptions{Ref: r.req.Ref, Dirty: r.dirty}, pw)
		_ = pw.CloseWithError(err)
		done <- packed{meta, err}
	}()
	repo, err := c.UploadRepo(ctx, pr)
	_ = pr.CloseWithError(errors.Join(io.ErrClosedPipe, err))
	got := <-done
	if err := cmp.Or(packError(got.err, err), err); err != nil {
		return fmt.Errorf("give %s to the job: %w", r.repo, err)
	}
	r.req.RepoID, r.req.Ref = repo.ID, ""
	p.line("repository", fmt.Sprintf("%s at %.12s, %s", r.repo, got.meta.Head, bytesText(repo.Size)))
	return nil
}

// packError is the packing's own error, unless it only says that the upload broke.
func packError(pack, upload error) error {
	if pack != nil && upload != nil && errors.Is(pack, io.ErrClosedPipe) {
		return nil
	}
	return pack
}
