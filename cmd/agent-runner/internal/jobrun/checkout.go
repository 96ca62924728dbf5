package jobrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/confine"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/repotask"
	"github.com/agentlab/agentlab/sdk/fault"
)

// resultName is where git work leaves its result, in the job's directory.
const resultName = "result.json"

// checkout leaves the job's repository in a directory of the agent's.
func (x *run) checkout(ctx context.Context) error {
	dir, err := x.repoDir()
	if err != nil {
		return err
	}
	if err := x.clear(dir); err != nil {
		return err
	}
	x.journal.RepoDir = dir
	if err := x.journal.save(x.Layout); err != nil {
		return err
	}
	call := repotask.Call{Dir: dir, Result: filepath.Join(x.Layout.JobDir(x.job.ID), resultName)}
	var res repotask.Result
	if x.job.RepoURL != "" {
		call.Action, call.URL, call.Ref = repotask.Clone, x.job.RepoURL, x.job.Ref
		res, err = x.git(dir).Run(ctx, call, nil)
	} else {
		call.Action = repotask.Unpack
		res, err = x.unpack(ctx, call)
	}
	if err != nil {
		return err
	}
	x.journal.Head, x.journal.Base = res.Meta.Head, res.Meta.Base
	x.say("%s is at %s", dir, res.Meta.Head)
	return nil
}

// git does git work as the agent's user; the job's log gets what it prints.
func (x *run) git(repo string) repotask.Task {
	return repotask.Task{Programs: x.Programs, Exe: x.Exe, Env: x.environment(x.job, repo), Output: x.log}
}

// unpack gets the repository archive from the host, from the beginning again
// when the connection breaks: a cut archive reads as malformed, so everything
// but a lasting refusal is tried again a few times.
func (x *run) unpack(ctx context.Context, call repotask.Call) (res repotask.Result, err error) {
	const tries = 5
	for try := 1; ; try++ {
		var body io.ReadCloser
		err = guestclient.Retry(ctx, nil, func(ctx context.Context) error {
			body, err = x.Host.Repo(ctx, x.job.ID)
			return err
		})
		if err != nil {
			return res, fmt.Errorf("get repository: %w", err)
		}
		watched := &watchedReader{r: body}
		res, err = x.git(call.Dir).Run(ctx, call, watched)
		body.Close()
		if err == nil || watched.err == nil || try == tries || ctx.Err() != nil {
			return res, err
		}
		x.Log.Warn("repository did not arrive whole", "attempt", try, "err", watched.err)
		if err := os.RemoveAll(call.Dir); err != nil {
			return res, fmt.Errorf("remove half a checkout: %w", err)
		}
		if err := x.give(call.Dir); err != nil {
			return res, err
		}
	}
}

// watchedReader remembers a failure to read.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// repoDir chooses the directory: the profile's wish, else in the workspace,
// else in /tmp.
func (x *run) repoDir() (string, error) {
	if wish := x.job.RepoDir; wish != "" {
		if !filepath.IsAbs(wish) || filepath.Clean(wish) != wish || strings.Count(wish, "/") < 2 {
			return "", fault.New(fault.Invalid, "the profile's repo path %q is not an absolute path below a top directory", wish)
		}
		return x.Layout.At(wish), nil
	}
	if st, err := os.Stat(x.Layout.At("/workspace")); err == nil && st.IsDir() {
		return x.Layout.At("/workspace/repo"), nil
	}
	return x.Layout.At("/tmp/repo"), nil
}

// clear makes dir an empty directory of the agent's. An older repository there
// is hostile: it is moved aside whole, and nothing of it is used. What this
// very job left in an earlier attempt is removed.
func (x *run) clear(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && len(entries) == 0:
	case err != nil:
		return fmt.Errorf("look into %s: %w", dir, err)
	case x.journal.RepoDir == dir:
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove half a checkout: %w", err)
		}
	default:
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err != nil {
			return fault.New(fault.Precondition, "%s is not empty and not a repository", dir)
		}
		aside := dir + "." + time.Now().UTC().Format(asideForm)
		if err := os.Rename(dir, aside); err != nil {
			return fmt.Errorf("move an older repository aside: %w", err)
		}
		x.say("an older repository was moved to %s", aside)
		if err := forgetOldest(dir); err != nil {
			return err
		}
	}
	return x.give(dir)
}

const (
	asideForm = "20060102T150405.000" // of the time in the name of what was moved aside
	asideKept = 3
)

// forgetOldest removes what was moved aside before the newest few: a sandbox that is
// kept for many jobs would fill its disk.
func forgetOldest(dir string) error {
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("look for older repositories: %w", err)
	}
	var aside []string // oldest first, as ReadDir sorts
	for _, e := range entries {
		at, found := strings.CutPrefix(e.Name(), filepath.Base(dir)+".")
		if _, err := time.Parse(asideForm, at); found && err == nil && e.IsDir() {
			aside = append(aside, filepath.Join(filepath.Dir(dir), e.Name()))
		}
	}
	for len(aside) > asideKept {
		if err := os.RemoveAll(aside[0]); err != nil {
			return fmt.Errorf("remove an older repository: %w", err)
		}
		aside = aside[1:]
	}
	return nil
}

func (x *run) give(dir string) error {
	return layout.MakeDir(dir, 0o755, layout.Owner{UID: x.Login.UID, GID: x.Login.GID})
}

// agent runs the job's command. The journal says so first: from then on it is
// never run again.
func (x *run) agent(ctx context.Context) (int, error) {
	dir := x.journal.RepoDir
	inv, err := choose(x.job, dir, lookup(x.path()))
	if err != nil {
		return -1, err
	}
	argv, err := x.wrap(x.job, dir, inv.argv)
	if err != nil {
		return -1, err
	}
	x.journal.Phase, x.journal.BootID = phaseRunning, x.Layout.BootID()
	if err := x.journal.save(x.Layout); err != nil {
		return -1, err
	}
	x.Log.Info("agent starts", "job", x.job.ID)
	k := confine.Command{Argv: argv, Dir: dir, Env: x.environment(x.job, dir), Output: x.log, Grace: x.Grace}
	if inv.stdin != "" {
		k.Stdin = strings.NewReader(inv.stdin)
	}
	return x.Programs.Run(ctx, k)
}

// withHint gives an error's text for people.
func withHint(err error) string {
	if hint := fault.HintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}
