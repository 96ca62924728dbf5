package driver

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// monitor has QEMU carry out a command of its human monitor.
func (l *lab) monitor(d *Driver, command string) (out string) {
	l.t.Helper()
	err := d.ask(testContext(l.t), testVMID, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		return c.Execute(ctx, "human-monitor-command", map[string]any{"command-line": command}, &out)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// counting waits until the counter is above the given number, and gives it.
func (l *lab) counting(d *Driver, above uint32) uint32 {
	l.t.Helper()
	for ctx := testContext(l.t); ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if n := l.counter(d, testVMID); n > above {
			return n
		}
	}
	l.t.Fatalf("the counter does not get above %d", above)
	return 0
}

func (l *lab) keep(d *Driver, name string, withMemory bool) {
	l.t.Helper()
	for range 2 { // a name that is taken is the answer
		s, err := d.CreateSnapshot(testContext(l.t), testRef(), name, withMemory)
		if err != nil || s.Name != name || s.WithMemory != withMemory || time.Since(s.Created) > time.Minute {
			l.t.Fatalf("snapshot: %+v, %v", s, err)
		}
	}
}

func (l *lab) rollBack(d *Driver, name string, want hypervisor.Power) {
	l.t.Helper()
	vm, err := d.RollbackSnapshot(testContext(l.t), testRef(), name)
	if err != nil || vm.Power != want {
		l.t.Fatalf("rollback to %s: %+v, %v, want it %s", name, vm, err, want)
	}
}

func (l *lab) wantSnapshots(d *Driver, want string) {
	l.t.Helper()
	list, err := d.ListSnapshots(testContext(l.t), testRef())
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); err != nil || got != want {
		l.t.Errorf("snapshots %q, %v, want %q", got, err, want)
	}
}

// onAnotherBoard makes the snapshot one of a machine with other devices, for a while.
func (l *lab) onAnotherBoard(d *Driver, name string, do func()) {
	l.t.Helper()
	list, err := d.store.Snapshots(testVMID)
	if err != nil {
		l.t.Fatal(err)
	}
	list.Find(name).Memory.Board--
	err = d.store.SaveSnapshots(testVMID, list)
	do()
	list.Find(name).Memory.Board++
	if err := errors.Join(err, d.store.SaveSnapshots(testVMID, list)); err != nil {
		l.t.Fatal(err)
	}
}

// second is what testhost.Count counts in one.
const second = 18

// Pausing keeps the guest's memory, and so does a snapshot with memory, over the
// end of its program.
func TestMemoryIsKept(t *testing.T) {
	l := newLab(t, testhost.Count)
	d := l.driver()
	l.create(d)
	if _, err := d.CreateSnapshot(testContext(t), testRef(), "mem", true); !errors.Is(err, fault.Precondition) {
		t.Errorf("memory of an off vm: %v, want precondition", err)
	}
	l.power(d, hypervisor.PowerOn, 0)
	l.counting(d, second)
	l.power(d, hypervisor.PowerPaused, 0)
	paused := l.counter(d, testVMID)
	if again := l.counter(d, testVMID); again != paused {
		t.Errorf("the counter of a paused guest went from %d to %d", paused, again)
	}
	l.keep(d, "mem", true)
	if vm, err := d.GetVM(testContext(t), testRef()); err != nil || vm.Power != hypervisor.PowerPaused || l.counter(d, testVMID) != paused {
		t.Errorf("after the snapshot: %+v, %v, counter %d, want paused at %d", vm, err, l.counter(d, testVMID), paused)
	}
	l.power(d, hypervisor.PowerOn, 0)
	far := l.counting(d, paused+3*second) // and read again long before it gets there
	l.rollBack(l.driver(), "mem", hypervisor.PowerOn)
	if back := l.counter(d, testVMID); back < paused || back >= far {
		t.Errorf("after the rollback the counter is %d, want about %d and less than %d", back, paused, far)
	}
	l.power(d, hypervisor.PowerOff, 0)
	l.rollBack(d, "mem", hypervisor.PowerOn)
	if back := l.counter(d, testVMID); back < paused {
		t.Errorf("after the rollback of an off vm the counter is %d, want %d or more", back, paused)
	}
	l.onAnotherBoard(d, "mem", func() {
		if _, err := d.RollbackSnapshot(testContext(t), testRef(), "mem"); !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
			t.Errorf("rollback to the memory of another machine: %v, want precondition", err)
		}
	})
	l.volume(d)
	l.attach(d, "work")
	_, create := d.CreateSnapshot(testContext(t), testRef(), "more", true)
	_, rollBack := d.RollbackSnapshot(testContext(t), testRef(), "mem")
	for what, err := range map[string]error{"snapshot": create, "rollback": rollBack} {
		if !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
			t.Errorf("%s with memory and a volume: %v, want precondition", what, err)
		}
	}
	if vm, err := d.GetVM(testContext(t), testRef()); err != nil || vm.Power != hypervisor.PowerOn {
		t.Errorf("after refused calls: %+v, %v", vm, err)
	}
	l.destroyAndCheck(d)
}

// Snapshots of the disk, of a VM that is off and one that is on, with a volume
// that no rollback touches.
func TestDiskGoesBackAndVolumeStays(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.volume(d)
	root := d.store.Path(testVMID, diskName)
	work := d.volumes.Disk(volumeRef().ID)
	fill(t, root, 1)
	l.keep(d, "off", false)
	l.attach(d, "work")
	l.power(d, hypervisor.PowerOn, 0)
	write := func(node string, pattern int) {
		t.Helper()
		if out := l.monitor(d, fmt.Sprintf(`qemu-io -d %s "write -P %d 0 64k"`, node, pattern)); strings.Contains(out, "Error") {
			t.Fatalf("write to %s: %s", node, out)
		}
	}
	write("/machine/peripheral/disk0/virtio-backend", 2)
	l.keep(d, "on", false)
	write("/machine/peripheral/disk0/virtio-backend", 3)
	write("vol-"+volumeRef().ID, 7)
	l.wantSnapshots(d, "off on")

	l.rollBack(d, "on", hypervisor.PowerOff)
	holds(t, root, 2)
	holds(t, work, 7)
	l.rollBack(d, "on", hypervisor.PowerOff)
	l.rollBack(d, "off", hypervisor.PowerOff)
	holds(t, root, 1)
	holds(t, work, 7)
	if v, err := d.GetVolume(testContext(t), volumeRef()); err != nil || v.AttachedVMID != testVMID {
		t.Errorf("after the rollback: %+v, %v", v, err)
	}
	for _, path := range []string{root, work} {
		if out, err := exec.Command("qemu-img", "check", "-q", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", path, err, out)
		}
	}
	l.power(d, hypervisor.PowerOn, 0)
	if got := l.guestSees(d); len(got) != 1 {
		t.Errorf("after the rollback the guest has %v", got)
	}
	for _, name := range []string{"on", "on", "never"} { // hot, gone, never there
		left, err := d.DeleteSnapshot(testContext(t), testRef(), name)
		if err != nil || len(left) == 0 || left[0].Name != "off" {
			t.Errorf("delete %s: %v, %v", name, left, err)
		}
	}
	l.power(d, hypervisor.PowerOff, 0)
	if left, err := d.DeleteSnapshot(testContext(t), testRef(), "off"); err != nil || len(left) > 0 {
		t.Errorf("delete off: %v, %v", left, err)
	}
	if out, err := exec.Command("qemu-img", "snapshot", "-l", root).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("snapshots in the disk: %v: %s", err, out)
	}
	for _, name := range []string{"on", "x", "current"} {
		_, err := d.RollbackSnapshot(testContext(t), testRef(), name)
		if !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Invalid) {
			t.Errorf("rollback to %s: %v, want not found or invalid", name, err)
		}
	}
}

// A VM that never ran has its snapshots also after its disk was made anew.
func TestSnapshotOfFreshVMOutlivesItsDisk(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.keep(d, "clean", false)
	bigger := testRequest()
	bigger.RootDiskBytes = 16 << 20
	if _, err := d.CreateVM(testContext(t), bigger, nil); err != nil {
		t.Fatal(err)
	}
	fill(t, d.store.Path(testVMID, diskName), 5)
	l.rollBack(d, "clean", hypervisor.PowerOff)
	if holdsPattern(d.store.Path(testVMID, diskName), 5) {
		t.Error("the disk was not taken back")
	}
}

func TestSnapshotsAreTheOwners(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.keep(d, "mine", false)
	stranger := testRef()
	stranger.Owner += "x"
	ctx := testContext(t)
	_, create := d.CreateSnapshot(ctx, stranger, "theirs", false)
	_, rollBack := d.RollbackSnapshot(ctx, stranger, "mine")
	_, drop := d.DeleteSnapshot(ctx, stranger, "mine")
	_, list := d.ListSnapshots(ctx, stranger)
	_, run := d.Exec(ctx, stranger, hypervisor.Command{Argv: []string{"true"}}, hypervisor.Streams{})
	_, off := d.Exec(ctx, testRef(), hypervisor.Command{Argv: []string{"true"}}, hypervisor.Streams{})
	for what, err := range map[string]error{"create": create, "rollback": rollBack, "delete": drop, "list": list, "exec": run, "exec in an off vm": off} {
		if !errors.Is(err, fault.Precondition) {
			t.Errorf("%s: %v, want precondition", what, err)
		}
	}
	l.wantSnapshots(d, "mine")
}
