package driver

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// A volume that was attached before the first start is plugged into the guest that
// goes on from memory, which has never heard of it.
func TestVolumeInAVMFromMemory(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	l.volume(d)
	l.attach(d, "work")
	for _, way := range []hypervisor.Way{hypervisor.WayMemory, hypervisor.WayBoot} {
		if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != way {
			t.Fatalf("start = %+v, want %s", vm.Start, way)
		}
		if got := l.guestSees(d); !cmp.Equal(got, []string{"work"}) {
			t.Errorf("started by %s the guest sees %v", way, got)
		}
		l.ownedBy(d, l.config.UIDBase+testVMID)
		l.power(d, hypervisor.PowerOff, 0)
	}
	l.detach(d)
	l.destroyAndCheck(d)
}

// An attach meets a start that was cut off while the guest was told who it is.
func TestAttachFinishesAStartFromMemory(t *testing.T) {
	l := newWarmLab(t)
	l.create(l.driver())
	l.volume(l.driver())
	l.killedIn("start", "naming")
	before := l.pids()
	d := l.driver()
	l.attach(d, "work")
	if got := l.guestSees(d); !cmp.Equal(got, []string{"work"}) || !cmp.Equal(l.pids(), before) {
		t.Errorf("the guest sees %v, programs before %v, after %v", got, before, l.pids())
	}
	l.destroyAndCheck(d)
}

// The memory of a VM that came from a template is kept and gone back to in a QEMU
// that has no template.
func TestSnapshotOfAVMFromMemory(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	l.keep(d, "new", false)
	l.power(d, hypervisor.PowerOn, 0)
	kept := l.counter(d, testVMID)
	l.keep(d, "warm", true)
	time.Sleep(time.Second)
	far := l.counter(d, testVMID)
	vm, err := d.RollbackSnapshot(testContext(t), testRef(), "warm")
	if err != nil || vm.Power != hypervisor.PowerOn || vm.Start != (hypervisor.Start{}) {
		t.Fatalf("vm = %+v, %v", vm, err)
	}
	if now := l.counter(d, testVMID); now < kept || now >= far {
		t.Errorf("counter is %d, was %d when kept and %d before the rollback", now, kept, far)
	}
	if vm, err := d.RollbackSnapshot(testContext(t), testRef(), "new"); err != nil || vm.Power != hypervisor.PowerOff {
		t.Fatalf("vm = %+v, %v", vm, err)
	}
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot {
		t.Errorf("start = %+v", vm.Start)
	}
	l.destroyAndCheck(d)
}

// The disk that is made anew has the snapshots of the one before.
func TestSnapshotOutlivesAKilledStartFromMemory(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	l.keep(d, "new", false)
	l.killedIn("start", "answered")
	d = l.driver()
	l.power(d, hypervisor.PowerOn, 0)
	if vm, err := d.RollbackSnapshot(testContext(t), testRef(), "new"); err != nil || vm.Power != hypervisor.PowerOff {
		t.Errorf("vm = %+v, %v", vm, err)
	}
	l.destroyAndCheck(d)
}
