package gitrepo

import (
	"context"
	"fmt"
	"strconv"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Changes tells what was committed in a checkout.
type Changes struct {
	Head    string // commit that HEAD is at
	Commits int    // reachable from HEAD or a branch, and not from the base
}

// MakeChanges writes a bundle of what was committed in the repository at dir
// on top of base to the file out: HEAD and all branches. Without new commits
// no file is made. Call it as the user who owns the repository: its contents
// and configuration are not trusted.
func MakeChanges(ctx context.Context, dir, base, out string) (Changes, error) {
	var c Changes
	if !commitPattern.MatchString(base) {
		return c, fault.New(fault.Invalid, "%q is not a commit", base)
	}
	g := untrusted(dir)
	head, err := g.run(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if err != nil {
		return c, fault.New(fault.Precondition, "the repository is gone or has no commit: %w", err)
	}
	c.Head = head
	if _, err := g.run(ctx, "cat-file", "-e", base+"^{commit}"); err != nil {
		return c, fault.New(fault.Precondition, "the repository no longer holds the commit %s that it was checked out at", base)
	}
	count, err := g.run(ctx, "rev-list", "--count", "HEAD", "--branches", "--not", base)
	if err != nil {
		return c, fmt.Errorf("count commits: %w", err)
	}
	if c.Commits, err = strconv.Atoi(count); err != nil {
		return c, fmt.Errorf("count commits: %w", err)
	}
	if c.Commits == 0 {
		return c, nil
	}
	if _, err := g.run(ctx, "bundle", "create", "--quiet", out, "HEAD", "--branches", "--not", base); err != nil {
		return c, fmt.Errorf("bundle commits: %w", err)
	}
	return c, nil
}

// untrusted asks only the one directory, and runs nothing in it.
func untrusted(dir string) git {
	return git{dir: dir, config: []string{"safe.directory=*"}, env: []string{"GIT_CEILING_DIRECTORIES=" + dir + "/.."}}
}
