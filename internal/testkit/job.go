package testkit

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
)

// Key is the private key that opens the daemon's guests.
func (d *Daemon) Key() string { return filepath.Join(d.Dir, "keys", "id_ed25519") }

// Decode reads what a command printed with --json.
func Decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
}

// StartJob starts a job without following it and returns its id.
func (d *Daemon) StartJob(t testing.TB, args ...string) string {
	t.Helper()
	var job api.Job
	Decode(t, d.MustRun(t, append([]string{"job", "run", "--detach", "--json"}, args...)...).Stdout, &job)
	if job.ID == "" {
		t.Fatal("no job id")
	}
	return job.ID
}

// Job is the job as it is now.
func (d *Daemon) Job(t testing.TB, id string) api.Job {
	t.Helper()
	var job api.Job
	Decode(t, d.MustRun(t, "job", "show", id, "--json").Stdout, &job)
	return job
}

// Sandbox is the sandbox as it is now.
func (d *Daemon) Sandbox(t testing.TB, ref string) api.Sandbox {
	t.Helper()
	var s api.Sandbox
	Decode(t, d.MustRun(t, "sandbox", "show", ref, "--json").Stdout, &s)
	return s
}

// WaitReady waits until the sandbox's guest has said hello.
func (d *Daemon) WaitReady(t testing.TB, ref string, within time.Duration) {
	t.Helper()
	Eventually(t, within, ref+" is ready", func() bool {
		s := d.Sandbox(t, ref)
		if s.State == "FAILED" {
			t.Fatalf("%s failed: %s", ref, s.Reason)
		}
		return s.State == "READY"
	})
}

// WaitJob waits until the job has ended.
func (d *Daemon) WaitJob(t testing.TB, id string, within time.Duration) api.Job {
	t.Helper()
	var job api.Job
	Eventually(t, within, "job "+id+" ends", func() bool {
		job = d.Job(t, id)
		return job.EndedAt != nil
	})
	return job
}

// SSH runs a line of shell in the guest through agentlab ssh. Stdin may be nil.
func (d *Daemon) SSH(ctx context.Context, ref, line string, stdin io.Reader) Result {
	quoted := "'" + strings.ReplaceAll(line, "'", `'\''`) + "'"
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "agentlab"), "--socket", d.Socket(), "ssh", ref, "--identity", d.Key(), "--", "sh", "-c", quoted)
	cmd.Stdin = stdin
	return Capture(cmd)
}

// MustExec runs a program of the test's own, which has to succeed.
func MustExec(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// MakeRepo makes a repository whose .agentlab/run.sh is the given script.
func MakeRepo(t testing.TB, dir, run string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, ".agentlab"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".agentlab", "run.sh"), []byte(run), 0o755); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) {
		MustExec(t, append([]string{"git", "-C", dir, "-c", "user.name=t", "-c", "user.email=t@localhost"}, args...)...)
	}
	git("init", "-q", "-b", "main")
	git("add", "-A")
	git("commit", "-q", "-m", "start")
	return dir
}
