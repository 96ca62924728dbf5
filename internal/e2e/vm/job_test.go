package vm_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/internal/testkit"
)

// localRun does what an agent does, says the secret in every way it knows,
// plants traps for whoever reads the repository on the host, and waits in the
// middle until the test has killed the daemon.
const localRun = `#!/bin/sh
set -eu
echo "plain: $PLANTED"
printf '%s' "$PLANTED" | base64
cd "$AGENTLAB_REPO_DIR"
echo "$AGENTLAB_TASK" > "$AGENTLAB_ARTIFACTS_DIR/result.txt"
git config core.fsmonitor 'touch /tmp/agentlab-trap; false'
mkdir -p .git/hooks
printf '#!/bin/sh\ntouch /tmp/agentlab-trap\n' > .git/hooks/post-checkout
chmod +x .git/hooks/post-checkout
echo made-by-the-guest > made.txt
git add made.txt
git -c user.name=g -c user.email=g@localhost commit -q -m 'guest commit'
echo waiting
sleep 12
echo waited
`

// testLocalJob is the main job: local repository in, log and artifacts and
// commit out, with the daemon and all plugins killed while it runs.
func (l *lab) testLocalJob(t *testing.T) {
	repo := testkit.MakeRepo(t, filepath.Join(t.TempDir(), "repo"), localRun)
	trap := "/tmp/agentlab-trap"
	if _, err := os.Stat(trap); err == nil {
		t.Fatalf("%s is there already; the test would prove nothing", trap)
	}
	job := l.StartJob(t, "--repo", repo, "--profile", "job", "--task", "say hello")
	l.waitLog(t, job, "waiting", 2*time.Minute)
	testNoSecretInArguments(t)
	l.killAll(t)
	l.Start(t)

	done := l.WaitJob(t, job, 3*time.Minute)
	if done.State != "COMPLETED" {
		t.Fatalf("state %s (%s), want COMPLETED", done.State, done.Reason)
	}
	log := l.MustRun(t, "job", "logs", job).Stdout
	encoded := base64.StdEncoding.EncodeToString([]byte(planted))
	if !strings.Contains(log, "plain: [REDACTED]") || strings.Contains(log, planted) || strings.Contains(log, encoded) || !strings.Contains(log, "waited") {
		t.Errorf("log:\n%s", log)
	}
	l.checkArtifacts(t, job)

	if r := l.RunIn(repo, "job", "fetch", job); r.Code != 0 {
		t.Fatalf("job fetch: %s%s", r.Stdout, r.Stderr)
	}
	branch := "agentlab/" + job
	if got := strings.TrimSpace(testkit.MustExec(t, "git", "-C", repo, "show", branch+":made.txt")); got != "made-by-the-guest" {
		t.Errorf("made.txt on %s = %q", branch, got)
	}
	if got := strings.TrimSpace(testkit.MustExec(t, "git", "-C", repo, "rev-list", "--count", "main.."+branch)); got != "1" {
		t.Errorf("commits on top of main: %s, want 1", got)
	}
	testkit.MustExec(t, "git", "-C", repo, "checkout", "-q", branch)
	if _, err := os.Stat(trap); err == nil {
		t.Error("a hook or setting of the guest's repository ran on the host")
	}
	testkit.Eventually(t, time.Minute, "the sandbox is destroyed", func() bool {
		return l.Sandbox(t, done.SandboxID).State == "DESTROYED"
	})
}

func (l *lab) checkArtifacts(t *testing.T, job string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "artifacts")
	l.MustRun(t, "job", "artifacts", "download", job, "--output", out)
	if b, err := os.ReadFile(filepath.Join(out, "result.txt")); err != nil || strings.TrimSpace(string(b)) != "say hello" {
		t.Errorf("result.txt = %q, %v", b, err)
	}
	b, err := os.ReadFile(filepath.Join(out, guestapi.ArtifactReport))
	if err != nil {
		t.Fatal(err)
	}
	var report guestapi.JobResult
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	if report.Status != "completed" || report.ExitCode != 0 || report.Commits != 1 {
		t.Errorf("report = %+v", report)
	}
	if _, err := os.Stat(filepath.Join(out, guestapi.ArtifactLog)); err != nil {
		t.Error(err)
	}
}

// killAll ends the daemon and every plugin with SIGKILL, and shows first that
// there was something to kill and afterwards that the guest lives.
func (l *lab) killAll(t *testing.T) {
	t.Helper()
	var list struct {
		Plugins []api.Plugin `json:"plugins"`
	}
	testkit.Decode(t, l.MustRun(t, "plugin", "list", "--json").Stdout, &list)
	if len(list.Plugins) < 3 {
		t.Fatalf("only %d plugins run", len(list.Plugins))
	}
	l.Kill(t)
	for _, p := range list.Plugins {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
	if err := exec.Command("pgrep", "-f", "qemu-system-x86_64.*"+regexp.QuoteMeta(l.Dir)).Run(); err != nil {
		t.Error("no guest outlived the daemon and its plugins")
	}
}

func (l *lab) waitLog(t *testing.T, id, text string, within time.Duration) {
	t.Helper()
	testkit.Eventually(t, within, "the log has "+text, func() bool {
		if job := l.Job(t, id); job.EndedAt != nil {
			t.Fatalf("the job ended %s (%s) before its log had %q", job.State, job.Reason, text)
		}
		return strings.Contains(l.Run("job", "logs", id).Stdout, text)
	})
}

// ssh runs a shell command in the guest through agentlab ssh.
func (l *lab) ssh(t *testing.T, ref, command string, within time.Duration) testkit.Result {
	t.Helper()
	return l.sshIn(t, ref, command, "", within)
}

// sshIn is ssh with something to read for the command.
func (l *lab) sshIn(t *testing.T, ref, command, stdin string, within time.Duration) testkit.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patient(within))
	defer cancel()
	return l.SSH(ctx, ref, command, strings.NewReader(stdin))
}
