package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// demoTask is the task of the job that scripts/demo.sh runs; its artifacts are in
// the checkout by then, and its commit is a branch.
const demoTask = "measure this repository"

const jobsCounted = 1000 // the most that the daemon lists

// devContents is what ends with a dev daemon.
type devContents struct {
	sandboxes []api.Sandbox
	jobs      []api.Job
	files     []string // in its directory, that --dev did not make
	down      error    // why sandboxes and jobs are not known
}

// contents asks the daemon and looks into its directory. Of one that was killed its
// database is read: the next daemon would find all of that again.
func (o devOptions) contents(ctx context.Context) (devContents, error) {
	var in devContents
	var err error
	if in.files, err = o.ownFiles(); err != nil {
		return in, err
	}
	c, err := o.client()
	if err != nil {
		return in, err
	}
	defer c.Close()
	if in.sandboxes, in.down = c.Sandboxes(ctx, client.SandboxQuery{}); in.down == nil {
		in.jobs, in.down = c.Jobs(ctx, client.JobQuery{Limit: jobsCounted})
	}
	if errors.Is(in.down, fault.Unavailable) && !o.alive() {
		in.down = in.read(ctx, filepath.Join(o.dir, "data", databaseName))
	}
	return in, nil
}

// alive tells whether there is a daemon, whatever it answers.
func (o devOptions) alive() bool {
	var ns unix.Stat_t
	if pinned, err := isNamespace(o.pin()); err != nil || !pinned {
		return err != nil
	}
	return unix.Stat(o.pin(), &ns) != nil || left(ns, "agentlabd") > 0
}

// read takes sandboxes and jobs from a database that no daemon has open.
func (in *devContents) read(ctx context.Context, path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // it never came so far
	}
	s, err := state.Open(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	sandboxes, err := s.Sandboxes(ctx, state.SandboxFilter{})
	if err != nil {
		return err
	}
	jobs, err := s.Jobs(ctx, state.JobFilter{Limit: jobsCounted})
	if err != nil {
		return err
	}
	for _, sb := range sandboxes {
		in.sandboxes = append(in.sandboxes, api.Sandbox{ID: sb.ID, JobID: sb.JobID, Keep: sb.Keep})
	}
	for _, j := range jobs {
		in.jobs = append(in.jobs, api.Job{ID: j.ID, Task: j.Task, State: string(j.State)})
	}
	return nil
}

func (o devOptions) client() (*client.Client, error) {
	return client.New(client.Options{Socket: filepath.Join(o.runDir, "agentlabd.sock"), Timeout: devAnswers, Patience: -1})
}

// withoutDemo leaves out what the demo's own job is and has.
func (in devContents) withoutDemo() devContents {
	demo := map[string]bool{}
	for _, j := range in.jobs {
		demo[j.ID] = j.Task == demoTask
	}
	in.jobs = slices.DeleteFunc(slices.Clone(in.jobs), func(j api.Job) bool { return demo[j.ID] })
	in.sandboxes = slices.DeleteFunc(slices.Clone(in.sandboxes), func(s api.Sandbox) bool { return demo[s.JobID] && !s.Keep })
	return in
}

func (in devContents) empty() bool { return len(in.sandboxes)+len(in.jobs)+len(in.files) == 0 }

// String lists the contents: "1 sandbox, 12 jobs (1 of them running), profiles/mine.hcl".
func (in devContents) String() string {
	var parts []string
	if n := len(in.sandboxes); n > 0 {
		parts = append(parts, count(n, "sandbox", "sandboxes"))
	}
	if n := len(in.jobs); n > 0 {
		jobs := count(n, "job", "jobs")
		if n == jobsCounted {
			jobs += " or more"
		}
		running := 0
		for _, j := range in.jobs {
			if !lab.JobState(j.State).Ended() {
				running++
			}
		}
		if running > 0 {
			jobs += fmt.Sprintf(" (%d of them running)", running)
		}
		parts = append(parts, jobs)
	}
	return strings.Join(append(parts, in.files...), ", ")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// ended says what --stop has removed, and what it never does.
func (in devContents) ended() string {
	what := "nothing was in it"
	switch {
	case in.down != nil:
		what = "removed with it: " + strings.Join(append([]string{"all that was in it, which could not be counted"}, in.files...), ", ")
	case !in.empty():
		what = "removed with it: " + in.String()
	}
	return "stopped; " + what + "\nleft for the next one: guest images and memory templates, under /var/cache/agentlab\n"
}

// refuseUsed is the error of --unless-used.
func (in devContents) refuseUsed(dir string) error {
	how := "go on using it (agentlabd --dev starts one that was killed again), or end it with all of that: " + stopCommand(dir)
	own := in.withoutDemo()
	switch {
	case !own.empty():
		return fault.New(fault.Precondition, "the dev daemon in %s has what may be yours: %s; nothing was stopped", dir, own).WithHint("%s", how)
	case in.down != nil:
		return fault.New(fault.Precondition, "what the dev daemon in %s has is not known; nothing was stopped: %w", dir, in.down).WithHint("%s", how)
	}
	return nil
}

// ownFiles lists profiles, bundles and keys that --dev did not make, or that were
// changed since.
func (o devOptions) ownFiles() ([]string, error) {
	var own []string
	for _, name := range []string{"profiles", "secrets", "keys"} {
		entries, err := os.ReadDir(filepath.Join(o.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.Denied, "look for files of yours: %w", err)
		}
		for _, e := range entries {
			path := filepath.Join(name, e.Name())
			if !o.madeByDev(path) {
				own = append(own, path)
			}
		}
	}
	return own, nil
}

var demoBundle = regexp.MustCompile(`^version: 1\nenv:\n  AGENTLAB_DEMO_TOKEN: demo-[A-Z2-7]+\n$`)

func (o devOptions) madeByDev(path string) bool {
	switch strings.TrimSuffix(path, ".new") {
	case "profiles/dev.hcl":
		text, err := os.ReadFile(filepath.Join(o.dir, path))
		return err == nil && withoutComments(string(text)) == withoutComments(devProfile)
	case "secrets/default.age":
		text, err := o.openBundle(path)
		return err == nil && demoBundle.Match(text)
	case "keys/age.key", "keys/id_ed25519", "keys/id_ed25519.pub":
		return true
	}
	return false
}

// withoutComments leaves out whole lines, which are what changes from one version of
// the dev profile to the next.
func withoutComments(hcl string) string { return comment.ReplaceAllString(hcl, "") }

var comment = regexp.MustCompile(`(?m)^\s*#.*\n`)

func (o devOptions) openBundle(path string) ([]byte, error) {
	key, err := os.ReadFile(filepath.Join(o.dir, "keys", "age.key"))
	if err != nil {
		return nil, err
	}
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(key)))
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(o.dir, path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r, err := age.Decrypt(f, id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 1<<10))
}
