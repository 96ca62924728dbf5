package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// CloneOptions say what to clone.
type CloneOptions struct {
	URL      string
	Ref      string    // branch, tag or commit; "" is the remote's default branch
	Env      []string  // further variables: how to authenticate
	Progress io.Writer // git's messages, nil for none
}

// Clone makes a checkout of a remote repository in dir, which must not exist or
// be empty. Neither the user's configuration nor anything in the repository
// has a say in it: no hook, filter or submodule. fault.NotFound: the remote has
// no such ref. fault.Unavailable: the remote does not answer or refuses.
func Clone(ctx context.Context, dir string, opts CloneOptions) (Meta, error) {
	m := Meta{Format: format}
	if strings.HasPrefix(opts.URL, "-") || strings.HasPrefix(opts.Ref, "-") {
		return m, fault.New(fault.Invalid, "repository URL or ref begins with a dash")
	}
	if err := requireEmpty(dir); err != nil {
		return m, err
	}
	g := git{dir: "/", env: append([]string{"GIT_ALLOW_PROTOCOL=https:http:ssh:git:file"}, opts.Env...)}
	if _, err := g.run(ctx, "init", "--quiet", "--template=", dir); err != nil {
		return m, fmt.Errorf("make repository: %w", err)
	}
	g.dir = dir
	if err := nameRemote(dir, opts.URL); err != nil {
		return m, err
	}
	progress := opts.Progress
	if progress == nil {
		progress = io.Discard
	}
	if err := g.stream(ctx, nil, progress, "fetch", "--quiet", "--tags", "--no-write-fetch-head", "origin"); err != nil {
		return m, remoteError("fetch from", opts.URL, err)
	}
	if err := g.chooseRef(ctx, opts, &m); err != nil {
		return m, err
	}
	branch := detachedBranch
	if m.Ref != "" {
		branch = strings.TrimPrefix(m.Ref, "refs/heads/")
	}
	if _, err := g.run(ctx, "checkout", "--quiet", "--force", "--no-track", "-B", branch, m.Head); err != nil {
		return m, fmt.Errorf("check out %s: %w", branch, err)
	}
	m.Base = m.Head
	format, err := g.run(ctx, "rev-parse", "--show-object-format")
	m.Objects = format
	return m, err
}

// nameRemote writes the remote into the new repository's configuration. The
// URL may hold a password, which must not stand in a command line.
func nameRemote(dir, url string) error {
	if strings.ContainsAny(url, "\n\r\x00") {
		return fault.New(fault.Invalid, "repository URL has a line break")
	}
	f, err := os.OpenFile(filepath.Join(dir, ".git", "config"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("name remote: %w", err)
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(url)
	_, err = fmt.Fprintf(f, "[remote \"origin\"]\n\turl = \"%s\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", quoted)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("name remote: %w", err)
	}
	return nil
}

// chooseRef finds the commit that ref names: a branch of the remote, a tag, or
// a commit, which is asked for by its full id when no branch holds it.
func (g git) chooseRef(ctx context.Context, opts CloneOptions, m *Meta) error {
	ref := opts.Ref
	if ref == "" {
		out, err := g.run(ctx, "ls-remote", "--symref", "origin", "HEAD")
		if err != nil {
			return remoteError("ask for the default branch of", opts.URL, err)
		}
		line, _, _ := strings.Cut(out, "\n")
		target, ok := strings.CutPrefix(line, "ref: ")
		target, _, _ = strings.Cut(target, "\t")
		if !ok || !plainBranch(target) {
			return fault.New(fault.NotFound, "%s has no default branch", shownURL(opts.URL)).
				WithHint("name one with --ref; an empty repository needs a first commit")
		}
		ref = strings.TrimPrefix(target, "refs/heads/")
	}
	ref = strings.TrimPrefix(ref, "refs/heads/")
	for _, try := range []string{"refs/remotes/origin/" + ref, "refs/tags/" + strings.TrimPrefix(ref, "refs/tags/"), ref} {
		if commit, err := g.run(ctx, "rev-parse", "--verify", "--quiet", try+"^{commit}"); err == nil {
			m.Head = commit
			if strings.HasPrefix(try, "refs/remotes/") && plainBranch("refs/heads/"+ref) {
				m.Ref = "refs/heads/" + ref
			}
			return nil
		}
	}
	if commitPattern.MatchString(ref) {
		if _, err := g.run(ctx, "fetch", "--quiet", "--no-write-fetch-head", "origin", ref); err == nil {
			m.Head = ref
			return nil
		}
	}
	return fault.New(fault.NotFound, "%s has no branch, tag or commit %q", shownURL(opts.URL), ref).
		WithHint("list what it has with: git ls-remote %s", shownURL(opts.URL))
}
