package vm_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/internal/testkit"
)

// planted is a secret that must be seen nowhere but in the guest's memory.
const planted = "planted-K7vQ2mZx94TfWc8LsD3h"

const bundle = `version: 1
env:
  PLANTED: ` + planted + `
`

const profiles = `
profile "job" {
  template       = "debian-12"
  secrets_bundle = "planted"

  resources {
    cores     = 2
    memory_mb = 768
  }

  network {
    mode  = "allowlist"
    allow = ["` + gitServer + `:9418"]
  }

  behavior {
    ttl_minutes_default = 10
  }
}

profile "clone" {
  template = "debian-12"

  resources {
    cores     = 2
    memory_mb = 768
  }
}
`

// lab is what the tests of one run share.
type lab struct {
	*testkit.Daemon
	listeners []func() // ends what the test itself runs in the daemon's namespace
}

// TestVM runs in order: first what others go on with, then the end of daemon and
// plugins, a spare among what they leave, then the tests that share one guest, and at
// the end the proof that nothing is left.
func TestVM(t *testing.T) {
	template := os.Getenv("AGENTLAB_TEMPLATE")
	if template == "" {
		t.Skip("needs a guest image; set AGENTLAB_TEMPLATE to what scripts/image.sh prints")
	}
	for _, tool := range []string{"qemu-system-x86_64", "nft", "ip", "nsenter", "git", "ssh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	// All VMs share the pages of a kernel that is not packed.
	if head := head(t, filepath.Join(template, "kernel"), 4); head != "\x7fELF" {
		t.Errorf("the image's kernel begins with %q, not as an ELF file", head)
	}
	before := testkit.Observe(t, "", nil)

	l := &lab{Daemon: testkit.NewDaemon(t, template)}
	l.Start(t)
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", l.PID())); string(name) != "agentlabd\n" {
		t.Errorf("pkill -x agentlabd does not find a daemon called %q, %v", name, err)
	}
	l.WriteBundle(t, "planted", bundle)
	l.WriteProfile(t, "test", profiles)
	startOutside(t, l)
	// One boot at most: what an earlier run has left in the host's cache is used.
	l.MustRun(t, "template", "warm", "--profile", "job")

	ignore := regexp.MustCompile(`/(agentlab\.db(-wal|-shm)?|artifacts/.*|agentlabd\.log|hypervisor-qemu/(lock|accel\.json|memory(/.*)?))$`)
	clean := testkit.Observe(t, l.Pin(), ignore, l.Dir)

	var silent string
	t.Run("two sandboxes", func(t *testing.T) { silent = l.testTwo(t) })
	t.Run("local repository, killed daemon", l.testLocalJob)
	t.Run("shared guest", l.testSharedGuest)
	t.Run("many from one memory", l.testClones)
	t.Run("host's deadline", func(t *testing.T) { l.testHostDeadline(t, silent) })
	failed := t.Failed()
	t.Run("nothing is left", func(t *testing.T) {
		var after testkit.World
		within := 2 * time.Minute // a memory template may still be in the making
		if failed {
			within = 0 // what a test that gave up has left does not go away
		}
		deadline := time.Now().Add(within)
		for {
			after = testkit.Observe(t, l.Pin(), ignore, l.Dir)
			if cmp.Equal(clean, after) || time.Now().After(deadline) {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		if d := cmp.Diff(clean, after); d != "" {
			t.Errorf("the world differs (- before, + after):\n%s", d)
		}
		testNoSecretLeft(t, l)
	})

	namespace := testkit.Namespace(t, l.Pin())
	l.Stop(t)
	for _, stop := range l.listeners {
		stop()
	}
	if left := testkit.Processes(namespace); len(left) > 0 {
		t.Errorf("processes outlived the daemon: %v", left)
	}
	if d := cmp.Diff(before, testkit.Observe(t, "", nil)); d != "" {
		t.Errorf("the host differs (- before, + after):\n%s", d)
	}
	for _, dir := range []string{l.Dir, l.RunDir} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
}

// head gives the first bytes of a file.
func head(t *testing.T, path string, n int) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}
