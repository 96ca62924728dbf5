package driver

import (
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// stuck makes a VM whose monitor takes connections and says nothing.
func (l *lab) stuck(d *Driver, vmid uint32, owner string) {
	l.t.Helper()
	v := &record.VM{VMID: vmid, Owner: owner, UID: d.uid(vmid), State: record.StateReady, Booted: true}
	pid := testhost.Start(l.t, testhost.Program{UID: v.UID, Args: []string{"sleep", "600"}})
	st, err := procfs.ReadStat(pid)
	if err != nil {
		l.t.Fatal(err)
	}
	v.Run = &record.Run{State: record.RunRunning, PID: pid, StartTicks: st.StartTicks, BootID: d.bootID, Started: time.Now().UTC()}
	if err := d.store.Claim(v); err != nil {
		l.t.Fatal(err)
	}
	monitor, err := spawn.Listen(d.store.Dir(vmid), monitorName)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = monitor.Close() })
}

func TestStuckMonitorsHoldUpAListOnce(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	for vmid := uint32(1100); vmid < 1105; vmid++ {
		l.stuck(d, vmid, "agentlab:other/sbx_1")
	}
	l.create(d)
	list := func(prefix string, foreign bool) (vms []hypervisor.VM, took time.Duration) {
		t.Helper()
		begun := time.Now()
		vms, err := d.ListVMs(testContext(t), prefix, foreign)
		if err != nil {
			t.Fatal(err)
		}
		return vms, time.Since(begun)
	}
	if vms, took := list(testOwner, false); len(vms) != 1 || vms[0].Ref != testRef() || took > monitorTimeout {
		t.Errorf("list beside stuck vms of another owner: %+v after %s", vms, took)
	}
	vms, took := list("", true)
	if took > 3*monitorTimeout {
		t.Errorf("list with stuck vms took %s", took)
	}
	for i, want := range []uint32{testVMID, 1100, 1101, 1102, 1103, 1104} {
		if len(vms) != 6 || vms[i].Ref.VMID != want || (vms[i].Power == hypervisor.PowerOn) != (i > 0) {
			t.Fatalf("vms = %+v", vms)
		}
	}
}
