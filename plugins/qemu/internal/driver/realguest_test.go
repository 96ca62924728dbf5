package driver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// guestUserData has the runner wait for a host that is nowhere.
const guestUserData = `#cloud-config
{"users": [{"name": "agent", "shell": "/bin/bash", "lock_passwd": true}],
 "write_files": [{"path": "/etc/agentlab/bootstrap.json", "permissions": "0600",
  "content": "{\"token\":\"t\",\"controller\":\"http://127.0.0.1:9\",\"vmid\":1001,\"sandbox\":\"sbx_test\"}"}]}
`

// realGuest is a VM of AgentLab's own image that has come up: of an image that is new
// to this host by a boot, of another from memory.
type realGuest struct {
	*lab
	d *Driver
}

func newRealGuest(t *testing.T) *realGuest {
	t.Helper()
	l, d := newImageLab(t)
	g := &realGuest{l, d}
	if common.newImage {
		d.cfg.MemoryTemplates = Off
	}
	req := l.imageRequest(0, "box")
	req.Seed.UserData = []byte(guestUserData)
	if _, err := d.CreateVM(testContext(t), req, nil); err != nil {
		t.Fatal(err)
	}
	want := hypervisor.WayMemory
	if common.newImage {
		want = hypervisor.WayBoot
	}
	if vm := g.power(d, hypervisor.PowerOn, 0); vm.Start.Way != want {
		t.Errorf("start = %+v, want by %s", vm.Start, want)
	}
	g.up()
	if got := g.run("cat /etc/agentlab/bootstrap.json"); !strings.Contains(got, `"sandbox":"sbx_test"`) {
		t.Errorf("of its seed the guest has %q", got)
	}
	return g
}

// up waits until the guest runs programs.
func (g *realGuest) up() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, 20*time.Second)
		code, err := g.d.Exec(short, testRef(), hypervisor.Command{Argv: []string{"true"}}, hypervisor.Streams{})
		cancel()
		if err == nil && code == 0 {
			g.t.Logf("up at %s", time.Now().Format("15:04:05"))
			return
		}
		last = err
		time.Sleep(500 * time.Millisecond)
	}
	console, _ := g.d.Console(testContext(g.t), testRef())
	g.t.Fatalf("the guest does not come up: %v; on its console: %s", last, console)
}

// try runs a script in the guest.
func (g *realGuest) try(script string) (out string, code int) {
	g.t.Helper()
	var stdout, stderr bytes.Buffer
	begun := time.Now()
	defer func() { g.t.Logf("%s: %.60s", time.Since(begun).Round(time.Millisecond), script) }()
	cmd := hypervisor.Command{Argv: []string{"sh", "-c", script}}
	code, err := g.d.Exec(testContext(g.t), testRef(), cmd, hypervisor.Streams{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		console, _ := g.d.Console(testContext(g.t), testRef())
		g.t.Fatalf("%s: %v; on its console: %s", script, err, console)
	}
	return strings.TrimSpace(stdout.String() + stderr.String()), code
}

// run wants it to end well.
func (g *realGuest) run(script string) string {
	g.t.Helper()
	out, code := g.try(script)
	if code != 0 {
		g.t.Fatalf("%s ended with %d: %s", script, code, out)
	}
	return out
}

// findWork puts the guest's name of the disk with serial "work" into D, or ends.
// A program costs a tenth of a second in an emulated guest.
const (
	lookForWork = `D=$(grep -ls work /sys/block/sd*/device/vpd_pg80); D=${D#/sys/block/}; D=${D%%/*}; `
	findWork    = `for i in 1 2 3 4 5 6 7 8; do ` + lookForWork + `[ "$D" ] && break; sleep 0.2; done; D=/dev/$D; `
)

// What only a real guest shows: programs, a volume with a file system on it, and
// moments to go back to. One guest, started once.
func TestRealGuest(t *testing.T) {
	g := newRealGuest(t)
	d := g.d
	if out, code := g.try("echo out; echo err >&2; exit 3"); code != 3 || out != "out\nerr" {
		t.Errorf("exec: %d, %q", code, out)
	}
	g.run("echo one >/root/marker; sync")
	g.keep(d, "one", false)

	g.volume(d)
	g.attach(d, "work")
	g.run(findWork + "mkfs.ext4 -q $D && mkdir -p /run/work && mount $D /run/work && echo kept >/run/work/file && sync")
	_, err := d.DetachVolume(testContext(t), testRef(), volumeRef())
	if !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "/run/work") {
		t.Errorf("detach of a mounted volume: %v, want precondition that names where", err)
	}
	g.run("umount /run/work")
	g.detach(d)
	if out := g.run(lookForWork + "echo $D"); out != "" {
		t.Errorf("after the detach the guest finds disk %s", out)
	}
	g.memoryGoesBack()

	g.attach(d, "work")
	g.run("echo two >/root/marker; sync; " + findWork + "mount $D /run/work && echo safe >/run/work/safe && sync")
	v, err := d.store.Load(testVMID)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(v.Run.PID, syscall.SIGKILL); err != nil { // as when the host's memory is short
		t.Fatal(err)
	}
	g.waitPower(d, hypervisor.PowerOff)
	g.rollBack(d, "one", hypervisor.PowerOff)
	// What a start would find, without its time.
	g.fileOn(d.store.Path(testVMID, diskName), "/root/marker", "one\n")
	g.fileOn(d.volumes.Disk(volumeRef().ID), "/file", "kept\n")
	g.fileOn(d.volumes.Disk(volumeRef().ID), "/safe", "safe\n")
	g.destroyAndCheck(d)
}

// fileOn wants a file in the file system of a disk that was cut off, after what its
// journal holds is put in place and nothing else is found wrong.
func (g *realGuest) fileOn(path, name, want string) {
	g.t.Helper()
	raw := filepath.Join(g.t.TempDir(), "raw")
	run := func(program string, args ...string) string {
		g.t.Helper()
		out, err := exec.Command(program, args...).Output()
		var exit *exec.ExitError
		if repaired := errors.As(err, &exit) && program == "e2fsck" && exit.ExitCode() == 1; err != nil && !repaired {
			g.t.Fatalf("%s %v: %v: %s", program, args, err, out)
		}
		return string(out)
	}
	run("qemu-img", "check", "-q", path)
	run("qemu-img", "convert", "-O", "raw", path, raw)
	run("e2fsck", "-p", raw)
	run("e2fsck", "-fn", raw)
	if got := run("debugfs", "-R", "cat "+name, raw); got != want {
		g.t.Errorf("%s on %s holds %q, want %q", name, path, got, want)
	}
	if err := os.Remove(raw); err != nil {
		g.t.Error(err)
	}
}

// memoryGoesBack: what is in the guest's memory alone is as it was.
func (g *realGuest) memoryGoesBack() {
	g.t.Helper()
	g.run("echo then >/run/memory")
	boot := g.run("cat /proc/sys/kernel/random/boot_id")
	g.keep(g.d, "mem", true)
	g.run("echo later >/run/memory")
	g.rollBack(g.d, "mem", hypervisor.PowerOn)
	g.up()
	if got := g.run("cat /run/memory /proc/sys/kernel/random/boot_id"); got != "then\n"+boot {
		g.t.Errorf("after the rollback the guest's memory holds %q, want %q", got, "then\n"+boot)
	}
	if _, err := g.d.DeleteSnapshot(testContext(g.t), testRef(), "mem"); err != nil {
		g.t.Error(err)
	}
}
