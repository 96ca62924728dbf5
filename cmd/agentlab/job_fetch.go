package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
)

func jobFetchCommand() cli.Command {
	var repo, branch string
	var withSecrets bool
	return cli.Command{
		Name: "job fetch", Args: "JOB", Synopsis: "bring a job's commits into a local repository as a branch", MinArgs: 1, MaxArgs: 1,
		Help: `
Brings the commits that a job made into the repository as branch agentlab/JOB.
They are checked before the repository sees them. Nothing is checked out and no
hook runs. A repository is found from any directory inside it.

Commits in which the guest found a value of the secrets bundle, and commits that
it could not search, are not brought unless --with-secrets is given.`,
		Answers: []cli.Answer{cli.AnswerOf[fetched]("branch")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&repo, "repo", ".", "local repository, a `directory`")
			fs.StringVar(&branch, "branch", "", "`name` of the branch (default: agentlab/JOB)")
			fs.BoolVar(&withSecrets, "with-secrets", false, "bring commits although they may hold a secret")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			name := cmp.Or(branch, "agentlab/"+args[0])
			var commit string
			if err = unflagged(ctx, c, args[0], withSecrets); err == nil {
				commit, err = fetchChanges(ctx, c, args[0], repo, name)
			}
			if err != nil {
				return fmt.Errorf("fetch the commits of %s: %w", args[0], err)
			}
			return show(env, fetched{name, commit}, func(w io.Writer) {
				fmt.Fprintf(w, "branch %s is at %.12s\n", name, commit)
				fmt.Fprintf(env.Err, "next: git log -p ..%[1]s    git diff ...%[1]s\n", name)
			})
		},
	}
}

// fetched is where the commits are, for programs.
type fetched struct {
	Branch string `json:"branch"`
	Commit string `json:"commit"`
}

// unflagged refuses commits that are flagged, unless they are wanted nevertheless.
func unflagged(ctx context.Context, c *client.Client, job string, withSecrets bool) error {
	if withSecrets {
		return nil
	}
	list, err := c.Artifacts(ctx, job)
	if err != nil && fault.ClassOf(err) != fault.NotFound { // then there is nothing to fetch
		return err
	}
	for _, a := range list {
		if a.Path == guestapi.ArtifactChanges && a.Flagged != "" {
			return fault.New(fault.Precondition, "%s %s", a.Path, oneLine(a.Flagged)).
				WithHint("fetch them with --with-secrets, take the value out of them before they are pushed (git rebase -i), and replace it")
		}
	}
	return nil
}

func fetchChanges(ctx context.Context, c *client.Client, job, repo, branch string) (string, error) {
	r, err := c.Artifact(ctx, job, guestapi.ArtifactChanges)
	if fault.ClassOf(err) == fault.NotFound {
		return "", fault.New(fault.NotFound, "there are none: %w", err).WithHint("%s", cmp.Or(fault.HintOf(err), "agentlab job show "+job+" tells how it ended"))
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	dir, err := os.MkdirTemp("", "agentlab-fetch-")
	if err != nil {
		return "", fault.New(fault.Internal, "make a temporary directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, guestapi.ArtifactChanges)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return "", fault.New(fault.Internal, "create a temporary file: %w", err)
	}
	_, err = io.Copy(f, r)
	if err := cmp.Or(err, f.Close()); err != nil {
		return "", fmt.Errorf("download: %w", err)
	}
	return gitrepo.Fetch(ctx, repo, path, branch)
}
