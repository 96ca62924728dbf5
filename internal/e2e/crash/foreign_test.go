package crash_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const otherHost = "agentlab:00000000-0000-4000-8000-00000000beef/"

// plant puts a VM into the world that no call of ours made.
func plant(t *testing.T, s *testkit.Sim, vmid uint32, owner string) world.VM {
	t.Helper()
	vm := world.VM{
		VMID: vmid, Owner: owner, Name: "planted", Template: "elsewhere", Power: hypervisor.PowerOn,
		Cores: 3, MemoryBytes: 3 << 30, Boot: 7, Started: time.Unix(1_700_000_000, 0).UTC(),
	}
	if err := s.World.Plant(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	return vm
}

// untouched expects that the planted VM is as it was and nothing was done to it.
func untouched(t *testing.T, s *testkit.Sim, want world.VM) {
	t.Helper()
	vms, err := s.World.VMs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vms = slices.DeleteFunc(vms, func(vm world.VM) bool { return vm.VMID != want.VMID })
	if d := cmp.Diff([]world.VM{want}, vms); d != "" {
		t.Errorf("planted VM (- then, + now):\n%s", d)
	}
	for _, e := range effects(t, s) {
		if e.Subject == fmt.Sprint(want.VMID) && e.Op != "vm.plant" {
			t.Errorf("effect %d %s touches it", e.Seq, e.Op)
		}
	}
}

func sandboxEvents(t *testing.T, s *testkit.Sim, ref, typ string) (out []api.Event) {
	t.Helper()
	events, err := s.Client.SandboxEvents(t.Context(), ref, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(events, func(e api.Event) bool { return e.Type != typ })
}

// TestForeignVM: the number that would be next is another's. That VM stays as
// it is, also when the daemon dies while it finds out, and another is taken.
func TestForeignVM(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	stop := s.KeepUp(t)
	first := awaitSandbox(t, s, newSandbox(t, s, "first").ID, lab.SandboxReady)
	unmarked := plant(t, s, first.VMID+1, "")
	marked := plant(t, s, first.VMID+2, otherHost+"sbx_theirs")
	if err := s.World.SetFaults(t.Context(),
		world.Fault{Do: world.KillDaemon, At: world.Call, Op: "vm.create", Subject: fmt.Sprint(unmarked.VMID)},
		world.Fault{Do: world.KillPlugin, At: world.Call, Op: "vm.create", Subject: fmt.Sprint(marked.VMID)},
	); err != nil {
		t.Fatal(err)
	}
	job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: "sim:exit=0"}).ID)
	s.AwaitUp(t)
	if killed := stop(); killed != 1 {
		t.Errorf("the daemon was killed %d times, want once", killed)
	}
	if job.State != string(lab.JobCompleted) || job.VMID != first.VMID+3 {
		t.Errorf("the job is %s in VM %d, want COMPLETED in %d: %s", job.State, job.VMID, first.VMID+3, job.Reason)
	}
	var burned []string
	for _, e := range sandboxEvents(t, s, job.SandboxID, lab.EventVMIDBurned) {
		burned = append(burned, e.Fields["vmid"])
	}
	if d := cmp.Diff([]string{fmt.Sprint(unmarked.VMID), fmt.Sprint(marked.VMID)}, burned); d != "" {
		t.Errorf("VMIDs given up (- want, + got):\n%s", d)
	}
	awaitIdle(t, s)
	untouched(t, s, unmarked)
	untouched(t, s, marked)
}

// TestForeignVMOutlivesUndo: a creation that fails at the foreign number, and
// is undone, does not clean up what it did not make.
func TestForeignVMOutlivesUndo(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	first := awaitSandbox(t, s, newSandbox(t, s, "first").ID, lab.SandboxReady)
	foreign := plant(t, s, first.VMID+1, otherHost+"sbx_theirs")
	if err := s.World.SetFaults(t.Context(), world.Fault{
		Do: world.Fail, At: world.Call, Op: "vm.create", Subject: fmt.Sprint(foreign.VMID), Class: "invalid", Message: "no such disk",
	}); err != nil {
		t.Fatal(err)
	}
	job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: "sim:exit=0"}).ID)
	if job.State != string(lab.JobFailed) || !strings.Contains(job.Reason, "create-vm") || !strings.Contains(job.Reason, "no such disk") {
		t.Errorf("the job is %s: %q", job.State, job.Reason)
	}
	awaitIdle(t, s)
	untouched(t, s, foreign)
	awaitSandbox(t, s, job.SandboxID, lab.SandboxDestroyed)
}

// TestStrayVMs: of the VMs that no live row explains, only one of a destroyed
// sandbox of ours is removed.
func TestStrayVMs(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: "sim:exit=0"}).ID)
	awaitIdle(t, s)
	var owner string
	for _, e := range effects(t, s) {
		if e.Op == "vm.create" {
			owner = e.Owner
		}
	}
	host, ok := strings.CutSuffix(owner, job.SandboxID)
	if !ok {
		t.Fatalf("the owner mark %q does not end in %s", owner, job.SandboxID)
	}
	s.Kill()
	ours := plant(t, s, job.VMID, owner)
	unknown := plant(t, s, job.VMID+1, host+"sbx_unknown")
	theirs := plant(t, s, job.VMID+2, otherHost+job.SandboxID)
	unmarked := plant(t, s, job.VMID+3, "")
	s.Start(t)
	testkit.Eventually(t, patient, "the VM of the destroyed sandbox is gone", func() bool {
		vms, err := s.World.VMs(t.Context())
		return err == nil && !slices.ContainsFunc(vms, func(vm world.VM) bool { return vm.VMID == ours.VMID })
	})
	found := sandboxEvents(t, s, job.SandboxID, lab.EventVMFound)
	if len(found) != 1 || found[0].Fields["action"] != "destroyed" || found[0].Fields["vmid"] != strconv.Itoa(int(ours.VMID)) {
		t.Errorf("events about it: %+v", found)
	}
	time.Sleep(time.Second) // for what should not happen
	for _, vm := range []world.VM{unknown, theirs, unmarked} {
		untouched(t, s, vm)
	}
}
