package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// brokenKVM makes a QEMU that dies with every CPU of the host, as some do where
// virtualisation is nested, behind a probe that says KVM is fast.
func brokenKVM(t *testing.T, l *lab) *Driver {
	t.Helper()
	dir := filepath.Dir(l.state)
	l.config.Accel, l.config.QEMUBinary = "auto", filepath.Join(dir, "qemu")
	testhost.Script(t, l.config.QEMUBinary,
		"case \"$*\" in *host,*) echo 'error: failed to set MSR 0x10a' >&2; exit 1;; esac\nexec qemu-system-x86_64 \"$@\"")
	device := filepath.Join(dir, "kvm")
	if err := errors.Join(os.WriteFile(device, nil, 0o666), os.Chmod(device, 0o666)); err != nil {
		t.Fatal(err)
	}
	d := l.driver()
	d.chooser.Device = device
	d.chooser.Measure = func(context.Context, string) (float64, error) { return 900e6, nil }
	return d
}

func TestFallsBackWhenKVMIsBroken(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := brokenKVM(t, l)
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	v, err := d.store.Load(testVMID)
	if err != nil || v.Run.Accel != "tcg" || len(l.pids()) != 1 {
		t.Errorf("run = %+v, programs %v, %v", v.Run, l.pids(), err)
	}
	raw, err := os.ReadFile(filepath.Join(l.state, "accel.json"))
	if err != nil || strings.Count(string(raw), "host,") != 2 {
		t.Errorf("remembered %s, %v, want both ways as broken", raw, err)
	}
	l.destroyAndCheck(d)
}

// A start that fails in every way says nothing about KVM.
func TestOtherFailureIsNotBlamedOnKVM(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := brokenKVM(t, l)
	l.create(d)
	if err := os.WriteFile(d.store.Path(testVMID, diskName), []byte("not a disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerOn, 0); err == nil {
		t.Fatal("a VM without a disk started")
	}
	if raw, err := os.ReadFile(filepath.Join(l.state, "accel.json")); err != nil || strings.Contains(string(raw), "host,") {
		t.Errorf("remembered %s, %v", raw, err)
	}
}

func TestCheckHostNamesFixes(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.config.QEMUBinary = "qemu-that-is-not-there"
	if err := os.Chmod(l.state, 0o700); err != nil {
		t.Fatal(err)
	}
	d := l.driver()
	report, err := d.CheckHost(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"qemu": "apt-get install qemu-system-x86, or name another with qemu_binary", "state_dir": "chmod o+x " + l.state}
	for _, f := range report.Findings {
		if fix, ok := want[f.ID]; ok && f.Level == plugin.LevelMissing && f.Fix == fix {
			delete(want, f.ID)
		}
	}
	if len(want) > 0 {
		t.Errorf("not reported: %v in %+v", want, report.Findings)
	}
	if report.CreatesInterface || report.InterfacePattern != "tap%di0" || report.VMIDFirst != 1000 {
		t.Errorf("report = %+v", report)
	}
	if got := d.Health(testContext(t)); !strings.Contains(got, "there is no qemu-that-is-not-there (apt-get install") || !strings.Contains(got, "chmod o+x") {
		t.Errorf("health = %q", got)
	}
}

func TestOldQEMUIsToldAtOnce(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.config.QEMUBinary = filepath.Join(t.TempDir(), "qemu")
	testhost.Script(t, l.config.QEMUBinary, "echo QEMU emulator version 5.2.0")
	if got := l.driver().Health(testContext(t)); !strings.Contains(got, "QEMU 5.2 ("+l.config.QEMUBinary+") is older than 7.2 (install QEMU 7.2") {
		t.Errorf("health = %q", got)
	}
}
