package badinput_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// TestImageWithoutNetwork: the build of an image says what to look at and leaves
// nothing that a later build would take for whole.
func TestImageWithoutNetwork(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, as the build does")
	}
	for _, tool := range []string{"mmdebstrap", "mke2fs", "qemu-img", "gcc", "cpio", "lz4", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	cache := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--net", filepath.Join(testkit.Root(t), "images/build.sh"),
		"--runner", testkit.Bin(t, "agent-runner"), "--cache", cache)
	cmd.Env = append(os.Environ(), "http_proxy=http://127.0.0.1:9", "https_proxy=http://127.0.0.1:9")
	r := testkit.Capture(cmd)
	for _, want := range []string{"packages cannot be fetched", "apt-get update", "proxy"} {
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("not said: %q", want)
		}
	}
	if r.Code == 0 || r.Stdout != "" || t.Failed() {
		t.Errorf("exit %d, %q:\n%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, dir := range []string{"images", "rootfs", "tmp"} {
		if entries, err := os.ReadDir(filepath.Join(cache, dir)); err != nil || len(entries) > 0 {
			t.Errorf("left in %s: %v (%v)", dir, entries, err)
		}
	}
}
