package driver

import (
	"testing"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// A snapshot lies in the disk that the VM has, and a spare would bring another.
func TestVMWithASnapshotIsNoSpare(t *testing.T) {
	l, d := spareLab(t)
	l.keep(d, "new", false)
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayMemory || len(l.pids()) != 1 {
		t.Errorf("vm = %+v, programs %v: want one of its own", vm, l.pids())
	}
	if vm, err := d.RollbackSnapshot(testContext(t), testRef(), "new"); err != nil || vm.Power != hypervisor.PowerOff {
		t.Errorf("rollback: vm = %+v, %v", vm, err)
	}
	l.destroyAndCheck(d)
}
