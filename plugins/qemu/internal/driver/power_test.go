package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func TestPowerStates(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	if vm := l.create(d); vm.Power != hypervisor.PowerOff {
		t.Fatalf("new vm is %s", vm.Power)
	}
	if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerPaused, 0); !errors.Is(err, fault.Precondition) {
		t.Errorf("pause of an off vm: %v, want precondition", err)
	}
	if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerHibernated, 0); !errors.Is(err, fault.Unsupported) {
		t.Errorf("hibernate: %v, want unsupported", err)
	}
	for _, target := range []hypervisor.Power{
		hypervisor.PowerOn, hypervisor.PowerOn, hypervisor.PowerPaused, hypervisor.PowerPaused,
		hypervisor.PowerOn, hypervisor.PowerOff, hypervisor.PowerOff, hypervisor.PowerOn,
	} {
		if vm := l.power(d, target, 0); vm.Power != target {
			t.Errorf("after %s the vm is %s", target, vm.Power)
		}
	}
	// This guest does not hear the button, so grace passes and force follows.
	begun := time.Now()
	if vm := l.power(d, hypervisor.PowerShutdown, 300*time.Millisecond); vm.Power != hypervisor.PowerOff {
		t.Errorf("after shutdown the vm is %s", vm.Power)
	}
	if took := time.Since(begun); took < 300*time.Millisecond {
		t.Errorf("shutdown gave the guest only %s", took)
	}
	l.destroyAndCheck(d)
}

func TestGuestPowersItselfOff(t *testing.T) {
	l := newLab(t, testhost.PowerOff)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	l.waitPower(d, hypervisor.PowerOff)
	// It can be started again, also though nobody noted the end.
	l.power(l.driver(), hypervisor.PowerOn, 0)
	l.waitPower(d, hypervisor.PowerOff)
}

// Firmware finds the boot sector on the bus that the manifest names, also in a
// VM that was made before manifests named one.
func TestFirmwareBootsFromEachBus(t *testing.T) {
	t.Parallel()
	for _, bus := range []machine.Bus{machine.VirtioBlk, machine.VirtioSCSI, ""} {
		t.Run(string(bus), func(t *testing.T) {
			l := newLab(t, testhost.PowerOff)
			d := l.driver()
			l.create(d)
			v, err := d.store.Load(testVMID)
			if err != nil {
				t.Fatal(err)
			}
			v.Template.DiskBus = string(bus)
			if err := d.store.Save(v); err != nil {
				t.Fatal(err)
			}
			l.power(d, hypervisor.PowerOn, 0)
			l.waitPower(d, hypervisor.PowerOff)
		})
	}
}

func TestGuestRebootsAndStays(t *testing.T) {
	l := newLab(t, testhost.Reboot)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	before := l.pids()
	time.Sleep(2 * time.Second) // several resets
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Power != hypervisor.PowerOn {
		t.Errorf("power = %s", vm.Power)
	}
	if after := l.pids(); strings.Join(before, " ") != strings.Join(after, " ") || len(after) != 1 {
		t.Errorf("programs before %v, after %v", before, after)
	}
}

func TestProgramIsConfined(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	// A descriptor that somebody forgot to close must not reach QEMU.
	null, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	l.power(d, hypervisor.PowerOn, 0)
	v, err := d.store.Load(testVMID)
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.Run.PID))
	if err != nil {
		t.Fatal(err)
	}
	uid := fmt.Sprint(v.UID)
	for _, want := range []string{
		"Uid:\t" + strings.Join([]string{uid, uid, uid, uid}, "\t"),
		"Gid:\t" + strings.Join([]string{uid, uid, uid, uid}, "\t"),
		"Groups:\t \n", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("status lacks %q:\n%s", want, status)
		}
	}
	links, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.Run.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", v.Run.PID, link.Name()))
		switch {
		case strings.HasPrefix(target, l.state), strings.HasPrefix(target, l.config.TemplateDir),
			strings.HasPrefix(target, "socket:"), strings.HasPrefix(target, "anon_inode:"),
			strings.HasPrefix(target, "/memfd:"), target == "/dev/null", target == "/dev/net/tun":
		default:
			t.Errorf("qemu holds %s", target)
		}
	}
	for name, mode := range map[string]os.FileMode{diskName: 0o600, seedName: 0o400, "vm.json": 0o600, monitorName: 0o600} {
		st, err := os.Stat(d.store.Path(testVMID, name))
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %04o", name, st.Mode(), err, mode)
		}
	}
}

func TestStuckMonitorDoesNotBlock(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	v, err := d.store.Load(testVMID)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := os.FindProcess(v.Run.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := stop.Signal(sigStop); err != nil {
		t.Fatal(err)
	}
	d.monitorWait, d.quitWait = noAnswer, noAnswer
	begun := time.Now()
	vm, err := d.GetVM(testContext(t), testRef())
	if err != nil || vm.Power != hypervisor.PowerOn {
		t.Errorf("stuck vm reads as %s, %v", vm.Power, err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("get took %s", took)
	}
	begun = time.Now()
	if vm := l.power(d, hypervisor.PowerOff, 0); vm.Power != hypervisor.PowerOff || time.Since(begun) > 5*time.Second {
		t.Errorf("stuck vm is %s after %s", vm.Power, time.Since(begun))
	}
	l.destroyAndCheck(d)
}

// A pid that the kernel gave to another program is not the VM.
func TestReusedPIDIsLeftAlone(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	self, err := procfs.ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	v, err := d.store.Load(testVMID)
	if err != nil {
		t.Fatal(err)
	}
	for _, ticks := range []uint64{self.StartTicks, self.StartTicks + 1} {
		v.Run = &record.Run{State: record.RunRunning, PID: os.Getpid(), StartTicks: ticks, BootID: d.bootID}
		if err := d.store.Save(v); err != nil {
			t.Fatal(err)
		}
		vm, err := d.GetVM(testContext(t), testRef())
		if err != nil || vm.Power != hypervisor.PowerOff {
			t.Errorf("vm reads as %s, %v, want off", vm.Power, err)
		}
	}
	l.power(d, hypervisor.PowerOff, 0) // must not kill this test
	l.destroyAndCheck(d)
}

// After a reboot of the host every VM is off, whatever has its old pid now.
func TestHostRebootLeavesVMsOff(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	d.bootID = "after the reboot"
	if vm, err := d.GetVM(testContext(t), testRef()); err != nil || vm.Power != hypervisor.PowerOff || !vm.Started.IsZero() {
		t.Errorf("vm reads as %+v, %v, want off", vm, err)
	}
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Power != hypervisor.PowerOn || len(l.pids()) != 1 {
		t.Errorf("vm is %s, programs %v", vm.Power, l.pids())
	}
}

func TestConsoleIsKept(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	say := func(text string) {
		err := d.ask(testContext(t), testVMID, monitorTimeout, func(ctx context.Context, c *qmp.Client) error {
			return c.Execute(ctx, "ringbuf-write", map[string]any{"device": "console", "data": text}, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		out, err := d.Console(testContext(t), testRef())
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	// Firmware speaks first, on the serial port; the guest has nothing to say.
	for ctx := testContext(t); !strings.Contains(read(), "Booting from Hard Disk...\r\n"); time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("the console shows no firmware: %q", read())
		}
	}
	say("one ")
	if got := read(); !strings.HasSuffix(got, "one ") {
		t.Errorf("console = %q", got)
	}
	say("two")
	if got := read(); !strings.HasSuffix(got, "one two") || !strings.Contains(got, "Booting from Hard Disk") {
		t.Errorf("console = %q", got)
	}
	for range 7 { // QEMU reads a command byte by byte
		say(strings.Repeat("x", 10_000))
	}
	say("end")
	if got := read(); len(got) != 64<<10 || !strings.HasSuffix(got, "end") {
		t.Errorf("console has %d bytes, ends in %q", len(got), got[max(0, len(got)-10):])
	}
	say("last words")
	l.power(d, hypervisor.PowerOff, 0)
	if got := read(); !strings.HasSuffix(got, "last words") {
		t.Errorf("console of an off vm ends in %q", got[max(0, len(got)-20):])
	}
}

func TestStats(t *testing.T) {
	l := newLab(t, testhost.Busy)
	d := l.driver()
	l.create(d)
	ask := func() map[uint32]hypervisor.Stats {
		s, err := d.GetStats(testContext(t), []uint32{testVMID, testVMID + 1})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := ask(); len(s) != 0 {
		t.Errorf("stats of an off vm: %v", s)
	}
	l.power(d, hypervisor.PowerOn, 0)
	if s := ask()[testVMID]; s.Window != 0 || s.MemoryUsedBytes < 1<<20 {
		t.Errorf("first stats = %+v", s)
	}
	time.Sleep(1500 * time.Millisecond)
	if s := ask()[testVMID]; s.Window < time.Second || s.CPUFraction < 0.1 || s.CPUFraction > 1 {
		t.Errorf("stats = %+v", s)
	}
}
