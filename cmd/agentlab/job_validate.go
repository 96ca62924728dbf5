package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/problem"
)

func jobValidateCommand() cli.Command {
	r := &jobRun{name: "job validate"}
	return cli.Command{
		Name: "job validate", Synopsis: "check all that job run would, and run nothing",
		Help: `
Takes the flags of agentlab job run and checks what that checks before a VM is
made: the repository's URL, or the state of a local one, and that there is
something to run; the profile, and that its template, the agent in it, its
secrets bundle and its network policy are there; a sandbox that is named, and
that it is free. Nothing is made or uploaded, and all that is wrong is told at
once. Whether a URL answers only the sandbox will know.`,
		Answers: []cli.Answer{cli.AnswerOf[validity]("job-plan")},
		Flags:   r.flags,
		Run:     r.validate,
	}
}

// validity is what job validate found, for programs.
type validity struct {
	api.JobPlan
	Repository *localRepo `json:"repository,omitempty"`
}

// localRepo is what would be packed of a local repository.
type localRepo struct {
	Path    string `json:"path"`
	Commit  string `json:"commit"`
	Ref     string `json:"ref,omitempty"`
	Dirty   bool   `json:"dirty,omitempty"`
	Shallow bool   `json:"shallow,omitempty"`
}

func (r *jobRun) validate(ctx context.Context, env *cli.Env, _ []string) error {
	if err := r.check(); err != nil {
		return err
	}
	c, err := connect(env)
	if err != nil {
		return err
	}
	defer c.Close()
	r.req.TTLSeconds = r.ttl.Seconds()
	var found validity
	var repoErr error
	req := api.JobCheck{JobCreate: r.req}
	if isURL(r.repo) {
		req.RepoURL = r.repo
	} else {
		req.LocalRepo = true
		found.Repository, repoErr = r.look(ctx, &req)
	}
	found.JobPlan, err = c.ValidateJob(ctx, req)
	if err := problem.Join(repoErr, err); err != nil {
		return err
	}
	return show(env, found, func(w io.Writer) {
		r.printPlan(w, found)
		fmt.Fprintln(env.Err, "\nnothing is wrong; agentlab job run with the same flags runs it")
	})
}

// look checks a local repository without packing it, and tells the check of the
// job what it has.
func (r *jobRun) look(ctx context.Context, req *api.JobCheck) (*localRepo, error) {
	req.Ref = "" // as giveRepo: the upload is of one commit
	m, script, err := gitrepo.Check(ctx, r.repo, gitrepo.PackOptions{Ref: r.req.Ref, Dirty: r.dirty}, guestapi.RunScript)
	if err != nil {
		return nil, fmt.Errorf("give %s to the job: %w", r.repo, err)
	}
	req.Script = map[gitrepo.Found]string{
		gitrepo.Missing: api.ScriptMissing, gitrepo.Plain: api.ScriptPlain, gitrepo.Executable: api.ScriptExecutable,
	}[script]
	return &localRepo{Path: r.repo, Commit: m.Head, Ref: strings.TrimPrefix(m.Ref, "refs/heads/"), Dirty: m.Dirty, Shallow: m.Shallow}, nil
}

func (r *jobRun) printPlan(w io.Writer, v validity) {
	sandbox, repo, end := "a new one", r.repo, v.Profile.OnJobEnd
	if v.Sandbox != nil {
		sandbox, end = fmt.Sprintf("%s (VMID %s)", v.Sandbox.Name, vmid(v.Sandbox.VMID)), "keep"
	}
	if r.req.Keep {
		end = "keep"
	}
	if l := v.Repository; l != nil {
		repo = fmt.Sprintf("%s at %.12s", l.Path, l.Commit)
		if l.Ref != "" {
			repo += ", branch " + l.Ref
		}
		if l.Dirty {
			repo += ", with uncommitted changes"
		}
		if l.Shallow {
			repo += ", shallow"
		}
	}
	fields(w,
		"repository", repo, "ref", r.req.Ref, "sandbox", sandbox, "profile", v.Profile.Name, "template", v.Profile.Template,
		"network", strings.TrimSpace(v.Profile.NetworkMode+" "+strings.Join(v.Profile.NetworkAllow, " ")),
		"bundle", cmp.Or(v.Profile.SecretsBundle, "none"), "agent", cmp.Or(v.Agent, v.Profile.AgentCommand, "the repository's "+guestapi.RunScript+", if it is executable"),
		"mode", v.Mode, "longest run", span(time.Duration(v.TTLSeconds)*time.Second), "at the end", end,
	)
}
