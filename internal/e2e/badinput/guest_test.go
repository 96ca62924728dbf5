package badinput_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
)

// TestSilentGuest: a guest that never says hello is given up after the time of
// the configuration, with the last lines of its console.
func TestSilentGuest(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.WriteConfig(t, "provisioning_timeout = \"10s\"\n"+b.Config(b.Plugins()))
	if err := b.World.SetFaults(t.Context(), world.Fault{Do: world.Hang, Op: "guest.fetch", Times: -1}); err != nil {
		t.Fatal(err)
	}
	b.Start(t)
	accepted, err := b.Client.CreateJob(t.Context(), api.JobCreate{RepoURL: url, Profile: "plain", Task: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var job api.Job
	testkit.Eventually(t, 2*time.Minute, "the job has failed", func() bool { // a minute of it is the grace after a daemon's start
		job, err = b.Client.Job(t.Context(), accepted.Job.ID, 0)
		return err == nil && job.State == string(lab.JobFailed)
	})
	for _, want := range []string{
		"the guest did not say hello within 10s; last lines of its console:", "Linux version sim, boot 1", "provisioning_timeout",
	} {
		if !strings.Contains(job.Reason, want) {
			t.Errorf("not said: %q in %q", want, job.Reason)
		}
	}
	b.wantFailedWith(fault.Timeout)
}

// TestKeyGoesAway: the bundle could be opened when the job was taken, and not
// any more when its guest asks. The job ends at once, with the reason.
func TestKeyGoesAway(t *testing.T) {
	t.Parallel()
	for _, class := range []fault.Class{fault.Precondition, fault.Denied} {
		t.Run(string(class), func(t *testing.T) {
			b := newBed(t)
			gone := world.Fault{Do: world.Fail, Op: "secrets.open", Times: -1, Class: string(class), Message: "the key file is not there"}
			if err := b.World.SetFaults(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
			b.Start(t)
			began := time.Now()
			r := b.Run("job", "run", "--repo", url, "--profile", "sim", "--task", "x")
			if r.Code != 125 || !strings.Contains(r.Stderr, `open secrets bundle "planted": the key file is not there`) {
				t.Errorf("exit %d, want 125 and the reason:\n%s", r.Code, r.Stderr)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
			b.wantGone()
		})
	}
}

// wantFailedWith wants one failed operation of the class, and its sandbox gone.
func (b *bed) wantFailedWith(class fault.Class) {
	b.t.Helper()
	st, err := b.Client.Status(b.t.Context())
	if err != nil || len(st.FailedOperations) != 1 || st.FailedOperations[0].Class != string(class) || st.FailedOperations[0].Hint == "" {
		b.t.Errorf("failed operations: %+v (%v)", st.FailedOperations, err)
	}
	b.wantGone()
}

// wantGone wants the only sandbox destroyed.
func (b *bed) wantGone() {
	b.t.Helper()
	var boxes []api.Sandbox
	testkit.Eventually(b.t, 20*time.Second, "the sandbox is destroyed", func() bool {
		var err error
		boxes, err = b.Client.Sandboxes(b.t.Context(), client.SandboxQuery{All: true})
		return err == nil && len(boxes) == 1 && boxes[0].State == string(lab.SandboxDestroyed)
	})
	b.wantEmptyWorld()
}

// TestQEMU: without a QEMU that can be used the daemon works, its status tells
// what is missing, and no sandbox is begun. Once there is one, all goes on.
func TestQEMU(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	qemu := b.path("qemu-system-x86_64")
	image := b.path("image")
	block := "\nplugin \"hypervisor\" \"qemu\" {\n  path = \"" + testkit.Bin(t, "agentlab-plugin-qemu") + "\"\n\n  config {\n    qemu_binary = \"" + qemu +
		"\"\n    accel = \"tcg\"\n    template_dir = \"\"\n    templates = [\"" + image + "\"]\n  }\n}\n"
	b.put("image/manifest.json", `{"format": 1, "name": "debian-12", "vmid": 9000, "version": "0123456789ab", "arch": "x86_64",
		"disk": "root.qcow2", "disk_format": "qcow2", "disk_virtual_bytes": 1048576, "kernel": "vmlinuz", "kernel_version": "6.1",
		"initrd": "initrd.img", "cmdline": "quiet", "ssh_user": "agent", "agents": []}`, 0o644)
	for _, name := range []string{"vmlinuz", "initrd.img"} {
		b.put("image/"+name, "x", 0o644)
	}
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", image+"/root.qcow2", "1M").CombinedOutput(); err != nil {
		t.Skipf("needs qemu-img: %v: %s", err, out)
	}
	b.chmod(b.path("image"), 0o755)
	b.chmod(b.Dir, 0o711)
	b.WriteConfig(t, b.Config(block+b.Block("network", b.Plugin, "")+b.Block("secrets", b.Plugin, "")))
	b.Start(t)
	await := func(want string) {
		t.Helper()
		testkit.Eventually(t, 15*time.Second, "status tells "+want, func() bool {
			out := b.Run("status").Stdout
			return strings.Contains(out, " degraded ") && strings.Contains(out, want)
		})
	}
	await("QEMU is not installed: there is no " + qemu + " (apt-get install qemu-system-x86")
	b.refuse(refusal{5, fault.Precondition, []string{"this host cannot run sandboxes: QEMU is not installed"}, "apt-get install qemu-system-x86"},
		"sandbox", "new", "--profile", "plain")
	b.put("qemu-system-x86_64", "#!/bin/sh\necho QEMU emulator version 5.2.0\n", 0o755)
	await("QEMU 5.2 (" + qemu + ") is older than 7.2 (install QEMU 7.2 or later")
	b.refuse(refusal{125, fault.Precondition, []string{"QEMU 5.2 (" + qemu + ") is older than 7.2"}, "install QEMU 7.2"},
		"job", "run", "--repo", url, "--profile", "plain", "--task", "x")
	b.put("qemu-system-x86_64.new", "#!/bin/sh\necho QEMU emulator version 7.2.0\n", 0o755)
	if err := os.Rename(qemu+".new", qemu); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 15*time.Second, "the plugin is ready", func() bool {
		return !strings.Contains(b.Run("status").Stdout, "degraded")
	})
}
