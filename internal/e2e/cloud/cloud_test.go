package cloud_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// planted is a secret that the guest gets.
const planted = "planted-R4nB8cYw21GqVe7TzK5j"

const bundle = `version: 1
env:
  PLANTED: ` + planted + `
`

// The disk is larger than the image's, so that cloud-init has one to grow.
const profiles = `
profile "cloud" {
  template       = "debian-12-cloud"
  secrets_bundle = "planted"

  resources {
    cores     = 1
    memory_mb = 1024
    disk_gb   = 6
  }

  network {
    mode = "off"
  }
}
`

// TestCloud runs in order: what the guest was born with, a job, and both again after
// a reboot.
func TestCloud(t *testing.T) {
	template := os.Getenv("AGENTLAB_CLOUD_TEMPLATE")
	if template == "" {
		t.Skip("needs a guest image; set AGENTLAB_CLOUD_TEMPLATE to what scripts/image.sh --kind cloud prints")
	}
	for _, tool := range []string{"qemu-system-x86_64", "nft", "ip", "nsenter", "git", "ssh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	g := boot(t, template)
	t.Run("cloud-init takes the seed", g.testAccepted)
	t.Run("the guest is what the seed says", g.testBorn)
	t.Run("console", g.testConsole)
	t.Run("job", func(t *testing.T) { g.testJob(t, "before the reboot") })
	t.Run("reboot from inside", g.testReboot)
	t.Run("job after the reboot", func(t *testing.T) { g.testJob(t, "after the reboot") })
}

// boot starts a daemon and the one guest. The console's end is shown when a
// test fails.
func boot(t *testing.T, template string) *guest {
	t.Helper()
	g := &guest{Daemon: testkit.NewDaemon(t, template), name: "cloud"}
	g.Start(t)
	// With less, an emulator has to translate this guest's programs six times over.
	g.SetQEMU(t, "tcg_tb_mb = 1024")
	g.WriteBundle(t, "planted", bundle)
	g.WriteProfile(t, "cloud", profiles)
	g.MustRun(t, "sandbox", "new", "--profile", "cloud", "--name", g.name, "--detach")
	t.Cleanup(func() {
		if t.Failed() {
			text := g.console(t)
			t.Logf("the console's end:\n%s", text[max(0, len(text)-8<<10):])
		}
	})
	g.WaitReady(t, g.name, 11*time.Minute)
	g.console(t) // before later lines push the first ones out of the ring
	return g
}
