package cloud_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/internal/testkit"
)

const jobRun = `#!/bin/sh
set -eu
echo "secret: $PLANTED"
id -un
echo "$AGENTLAB_TASK" > "$AGENTLAB_ARTIFACTS_DIR/result.txt"
`

// testJob runs a job in the guest: repository and secrets in, log and artifacts
// out.
func (g *guest) testJob(t *testing.T, task string) {
	repo := testkit.MakeRepo(t, filepath.Join(t.TempDir(), "repo"), jobRun)
	job := g.StartJob(t, "--sandbox", g.name, "--repo", repo, "--task", task)
	done := g.WaitJob(t, job, 3*time.Minute)
	if done.State != "COMPLETED" {
		t.Fatalf("state %s (%s), want COMPLETED", done.State, done.Reason)
	}
	log := g.MustRun(t, "job", "logs", job).Stdout
	if !strings.Contains(log, "secret: [REDACTED]\nagent\n") || strings.Contains(log, planted) {
		t.Errorf("log:\n%s", log)
	}
	out := filepath.Join(t.TempDir(), "artifacts")
	g.MustRun(t, "job", "artifacts", "download", job, "--output", out)
	if b, err := os.ReadFile(filepath.Join(out, "result.txt")); err != nil || strings.TrimSpace(string(b)) != task {
		t.Errorf("result.txt = %q, %v", b, err)
	}
}

// testReboot shows that cloud-init leaves alone what it, the runner and people
// have made of the guest.
func (g *guest) testReboot(t *testing.T) {
	const state = born + `
echo "second key $(grep -c second /home/agent/.ssh/authorized_keys)"
echo "own file $(cat /etc/agentlab/own)"
sha256sum /etc/agentlab/bootstrap.json /var/lib/agentlab/credential /etc/ssh/ssh_host_ed25519_key /etc/machine-id /etc/fstab /etc/hosts
`
	g.root(t, "echo 'ssh-ed25519 AAAA second' >>/home/agent/.ssh/authorized_keys; echo kept >/etc/agentlab/own")
	try := func(line string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return strings.TrimSpace(g.run(ctx, line).Stdout)
	}
	boot := func() string { return try("cat /proc/sys/kernel/random/boot_id") }
	before, first := g.root(t, state), boot()
	if first == "" {
		t.Fatal("no boot id")
	}
	hellos := func() int {
		return strings.Count(g.MustRun(t, "events", "--type", "guest.hello", "--json").Stdout, `"guest.hello"`)
	}
	seen := hellos()
	try("sudo systemctl reboot") // the answer is cut off
	// Asking by ssh would take the guest several seconds a time, from its shutdown and boot.
	testkit.Eventually(t, 10*time.Minute, "the guest's runner says hello again", func() bool {
		g.console(t) // before later lines push the first ones out of the ring
		return hellos() > seen
	})
	testkit.Eventually(t, time.Minute, "the guest is back", func() bool {
		b := boot()
		return b != "" && b != first
	})
	g.root(t, cloudInitEnds)
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(g.root(t, state), "\n")); diff != "" {
		t.Errorf("the reboot changed (- before, + after):\n%s", diff)
	}
	testkit.Eventually(t, time.Minute, "the runner has the secrets again", func() bool {
		return g.root(t, "grep -rl "+planted+" /run/agentlab/secrets || true") != ""
	})
}
