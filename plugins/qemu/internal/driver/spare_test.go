package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// newSpareLab has one spare wait for each VM.
func newSpareLab(t *testing.T) *lab {
	l := newWarmLab(t)
	l.config.Spares = 1
	return l
}

// waits returns when a spare does, or when none will.
func (l *lab) waits(d *Driver) error {
	l.t.Helper()
	for ctx := testContext(l.t); ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if n, _, err := d.spares.state(); n > 0 || err != nil {
			return err
		}
	}
	l.t.Fatal("no spare came to wait")
	return nil
}

// spareLab has a spare waiting for the VM that is there.
func spareLab(t *testing.T) (*lab, *Driver) {
	l := newSpareLab(t)
	d := l.driver()
	l.warm(d)
	l.create(d)
	if err := l.waits(d); err != nil {
		t.Fatal(err)
	}
	return l, d
}

// strays are the programs that run as users of spares.
func (l *lab) strays() []procfs.Identity {
	l.t.Helper()
	var out []procfs.Identity
	for uid := l.config.spareUID(); uid < l.config.spareUID()+5; uid++ {
		found, err := procfs.Find(uid)
		if err != nil {
			l.t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

func (l *lab) noSparesLeft() {
	l.t.Helper()
	if left := l.strays(); len(left) > 0 {
		l.t.Errorf("programs left: %v", left)
	}
	folders, err := os.ReadDir(filepath.Join(l.state, "spares"))
	if err != nil || len(folders) > 0 {
		l.t.Errorf("folders left: %v, %v", folders, err)
	}
}

func TestStartFromSpare(t *testing.T) {
	l, d := spareLab(t)
	before := l.strays()
	disk := l.inode(l.state, "spares", strconv.Itoa(int(before[0].UID)), diskName)
	if len(before) != 1 || l.guest.rehearsed != 1 || len(l.guest.assumed) != 0 {
		t.Fatalf("programs %v, rehearsed %d times, assumed %v", before, l.guest.rehearsed, l.guest.assumed)
	}
	vm := l.power(d, hypervisor.PowerOn, 0)
	if want := (hypervisor.Start{Way: hypervisor.WayMemory, Reason: "a spare guest waited"}); vm.Power != hypervisor.PowerOn || vm.Start != want {
		t.Fatalf("vm = %+v", vm)
	}
	v, err := d.store.Load(testVMID)
	if err != nil || v.Run.PID != before[0].PID || v.UID != before[0].UID {
		t.Fatalf("record = %+v, %v: want the program %v", v, err, before[0])
	}
	if len(l.guest.assumed) != 1 || l.guest.assumed[0].MAC != testMAC {
		t.Errorf("identity = %+v", l.guest.assumed)
	}
	if d := cmp.Diff(channel.Seed(testRequest().Seed), l.guest.assumed[0].Seed); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]uint64{diskName: disk, seedName: l.inode("/proc", strconv.Itoa(before[0].PID), "fd", l.descriptor(before[0].PID, seedName))} {
		if now := l.inode(d.store.Path(testVMID, name)); now != want {
			t.Errorf("QEMU has another %s than the vm", name)
		}
	}
	now := l.counter(d, testVMID)
	time.Sleep(200 * time.Millisecond)
	if then := l.counter(d, testVMID); then <= now {
		t.Errorf("the guest counts %d, then %d", now, then)
	}
	if err := l.waits(d); err != nil || len(l.strays()) != 2 {
		t.Errorf("programs %v, %v: want the next spare", l.strays(), err)
	}
	// A plugin that is started anew finds the VM by its record, and the other's spare is not its own to end.
	other := l.driver()
	if err := other.Tidy(testContext(t)); err != nil || len(l.strays()) != 2 {
		t.Errorf("programs %v, %v", l.strays(), err)
	}
	if vm, err := other.GetVM(testContext(t), testRef()); err != nil || vm.Power != hypervisor.PowerOn {
		t.Errorf("vm = %+v, %v", vm, err)
	}
	l.power(d, hypervisor.PowerOff, 0)
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot {
		t.Errorf("second start = %+v", vm.Start)
	}
	l.destroyAndCheck(d)
	if err := d.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l.noSparesLeft()
}

// Whatever is wrong with a spare, the VM starts from memory without it.
func TestStartWithoutSpare(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spoil func(l *lab, d *Driver)
		keeps bool // the user: the record names it before the spare comes to nothing
	}{
		"ended": {spoil: func(l *lab, _ *Driver) {
			for _, id := range l.strays() {
				if err := unix.Kill(id.PID, unix.SIGKILL); err != nil {
					l.t.Fatal(err)
				}
			}
			for len(l.strays()) > 0 { // one that is about to end would be handed over
				time.Sleep(time.Millisecond)
			}
		}},
		"no network": {keeps: true, spoil: func(l *lab, d *Driver) {
			d.replug = func(f *os.File, _ string) error {
				l.tap(testVMID + 1)
				other := tapOf(l.number, fmt.Sprintf(InterfacePattern, testVMID+1))
				return errors.Join(tap.Replug(f, other), fault.New(fault.Internal, "no")) // it has lost its own by then
			}
		}},
		"template made anew": {spoil: func(l *lab, d *Driver) {
			path := d.memory.Path(l.keys(d)[0], memory.DiskName)
			text, err := os.ReadFile(path)
			if err == nil {
				err = errors.Join(os.Remove(path), os.WriteFile(path, text, 0o444))
			}
			if err != nil {
				l.t.Fatal(err)
			}
		}},
		"no identity": {keeps: true, spoil: func(l *lab, _ *Driver) {
			first := true
			l.guest.assume = func(context.Context) error {
				if !first {
					return nil
				}
				first = false
				return fault.New(fault.Unavailable, "no runner")
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, d := spareLab(t)
			spare := l.strays()[0]
			tt.spoil(l, d)
			vm := l.power(d, hypervisor.PowerOn, 0)
			uid := l.config.UIDBase + testVMID
			if tt.keeps {
				uid = spare.UID
			}
			v, err := d.store.Load(testVMID)
			if err != nil || v.UID != uid || v.Run.PID == spare.PID || vm.Start.Way != hypervisor.WayMemory {
				t.Errorf("vm = %+v, record %+v, %v: want a start from memory as %d", vm, v, err, uid)
			}
			if found, err := procfs.Find(uid); err != nil || len(found) != 1 || len(l.pids())+len(l.strays()) != 1 {
				t.Errorf("programs %v and %v, %v: want one", l.pids(), l.strays(), err)
			}
			l.destroyAndCheck(d)
			if err := d.Close(testContext(t)); err != nil {
				t.Fatal(err)
			}
			l.noSparesLeft()
		})
	}
}

// inode gives the number of a file.
func (l *lab) inode(path ...string) uint64 {
	l.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(path...), &st); err != nil {
		l.t.Fatal(err)
	}
	return st.Ino
}

// descriptor is the one under which a program has a file of that name.
func (l *lab) descriptor(pid int, name string) string {
	l.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range all {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && filepath.Base(to) == name {
			return e.Name()
		}
	}
	l.t.Fatalf("pid %d has no %s", pid, name)
	return ""
}

// What a VM that was a spare is found by does not follow from its number.
func TestFormerSpareWithoutRecord(t *testing.T) {
	t.Parallel()
	tests := map[string]func(l *lab, d *Driver){
		"folder removed": func(l *lab, d *Driver) {
			if err := os.RemoveAll(d.store.Dir(testVMID)); err != nil {
				l.t.Fatal(err)
			}
			l.destroyAndCheck(d)
			if left := l.strays(); len(left) > 0 {
				l.t.Errorf("programs left: %v", left)
			}
		},
		"record damaged": func(l *lab, d *Driver) {
			if err := os.WriteFile(d.store.Path(testVMID, "vm.json"), []byte("{"), 0o600); err != nil {
				l.t.Fatal(err)
			}
			if vm, err := d.GetVM(testContext(l.t), testRef()); err != nil || vm.Power != hypervisor.PowerOn {
				l.t.Errorf("vm = %+v, %v: want one that is on", vm, err)
			}
			for _, id := range l.strays() {
				_ = unix.Kill(id.PID, unix.SIGKILL)
			}
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, d := spareLab(t)
			d.cfg.Spares = 0 // no further one
			l.power(d, hypervisor.PowerOn, 0)
			if len(l.strays()) != 1 {
				t.Fatalf("programs = %v", l.strays())
			}
			tt(l, d)
		})
	}
}

// One note that cannot be read, or one of a VM's by now, keeps no other from being tidied.
func TestTidyOfDamagedSpares(t *testing.T) {
	l := newSpareLab(t)
	l.create(l.driver())
	l.killedIn("start from spare", "spare-started")
	d := l.driver()
	uid := l.config.spareUID() + 3
	damaged := filepath.Join(l.state, "spares", strconv.Itoa(int(uid)))
	if err := errors.Join(os.Mkdir(damaged, 0o711), os.WriteFile(filepath.Join(damaged, "spare.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.Tidy(testContext(t)); !errors.Is(err, fault.Precondition) {
		t.Errorf("tidy: %v, want precondition", err)
	}
	if left := l.strays(); len(left) > 0 {
		t.Errorf("programs left: %v", left)
	}
	if err := os.RemoveAll(damaged); err != nil {
		t.Fatal(err)
	}
	l.noSparesLeft()
}

// A guest that cannot rehearse is no spare, and is not asked again and again.
func TestNoSpares(t *testing.T) {
	l := newSpareLab(t)
	l.guest.rehearse = func(context.Context) error { return fault.New(fault.Unsupported, "too old") }
	d := l.driver()
	l.warm(d)
	if err := l.waits(d); !errors.Is(err, fault.Unsupported) {
		t.Errorf("spares: %v, want unsupported", err)
	}
	l.create(d)
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayMemory {
		t.Errorf("vm = %+v", vm)
	}
	if l.guest.rehearsed != 1 {
		t.Errorf("the guest was asked %d times", l.guest.rehearsed)
	}
	l.noSparesLeft()
}

// A template that goes takes its spares with it: another may have its name by then.
func TestSparesGoWithTheirTemplate(t *testing.T) {
	l := newMemoryLab(t)
	l.config.Spares = 1
	d := l.driver()
	l.warm(d)
	if err := l.waits(d); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(l.config.TemplateDir, "tiny-1")); err != nil {
		t.Fatal(err)
	}
	if err := d.Tidy(testContext(t)); err != nil || len(l.keys(d)) > 0 {
		t.Fatalf("templates %v, %v", l.keys(d), err)
	}
	l.noSparesLeft()
}

// A plugin that is killed while it makes a spare leaves one for the next to end.
func TestSparesOfKilledPlugin(t *testing.T) {
	l := newSpareLab(t)
	l.create(l.driver())
	for _, step := range []string{"spare-spawned", "spare-started"} {
		t.Run(step, func(t *testing.T) {
			l.killedIn("start from spare", step)
			if len(l.strays()) != 1 {
				t.Fatalf("programs after the kill: %v, want the orphan", l.strays())
			}
			if err := l.driver().Tidy(testContext(t)); err != nil {
				t.Fatal(err)
			}
			l.noSparesLeft()
		})
	}
}

func TestStartFromSpareConvergesAfterKill(t *testing.T) {
	l := newSpareLab(t)
	early := []string{
		"noted-outside", "announced", "imprinted", "took " + diskName, "took " + seedName, "took " + monitorName, "took " + channelName,
		"occupied",
	}
	for _, step := range append(early, "answered", "loaded", "named", "naming", "gone", "recorded") {
		t.Run(step, func(t *testing.T) {
			l.create(l.driver())
			l.killedIn("start from spare", step)
			before := l.strays()
			if len(before) != 1 {
				t.Fatalf("programs after the kill: %v, want one", before)
			}
			d := l.driver()
			d.cfg.Spares = 0
			if err := d.Tidy(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if left := l.strays(); slices.Contains(early, step) && len(left) > 0 {
				t.Errorf("the spare was not ended: %v", left)
			}
			vm := l.power(d, hypervisor.PowerOn, 0)
			if vm.Power != hypervisor.PowerOn || vm.Start.Way != hypervisor.WayMemory {
				t.Errorf("vm = %+v", vm)
			}
			after := l.strays()
			// Once it may use its identity it must not be ended.
			kept := len(after) == 1 && after[0] == before[0]
			if used := step == "naming" || step == "gone" || step == "recorded"; used != kept {
				t.Errorf("programs = %v, then %v", before, after)
			}
			l.destroyAndCheck(d)
			l.noSparesLeft()
		})
	}
}
