package driver

import (
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var otherMark = record.Mark(testVMID, testOwner+"x")

// note writes down that the VM's program is this one, or one that has ended.
func (l *lab) note(d *Driver, pid int, ended bool) {
	l.t.Helper()
	v, err := d.store.Load(testVMID)
	if err != nil {
		l.t.Fatal(err)
	}
	st, err := procfs.ReadStat(pid)
	if err != nil {
		l.t.Fatal(err)
	}
	if ended {
		st.StartTicks--
	}
	v.Booted = true
	v.Run = &record.Run{
		State: record.RunRunning, PID: pid, StartTicks: st.StartTicks, BootID: d.bootID, Started: time.Now().UTC(),
	}
	if err := d.store.Save(v); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) start(p testhost.Program) int {
	l.t.Helper()
	p.UID = l.config.UIDBase + testVMID
	return testhost.Start(l.t, p)
}

// A guest that took over its QEMU has the VM's user and nothing else for
// certain. It must be seen, and must not outlast power-off or destroy.
func TestTakenOverProgramIsSeenAndEnded(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		program testhost.Program
		left    bool // not the program that was started, which has ended
	}{
		"arguments overwritten":        {program: testhost.Program{Args: []string{"sleep", "600"}}},
		"arguments of another vm":      {program: testhost.Program{Args: []string{"sh", "-c", "read x", machine.MarkFlag, otherMark}}},
		"first thread ended":           {program: testhost.Program{Headless: true}},
		"another program in its stead": {program: testhost.Program{Args: []string{"sleep", "600"}}, left: true},
	}
	ends := map[string]func(*lab, *Driver){
		"power off": func(l *lab, d *Driver) {
			if vm := l.power(d, hypervisor.PowerOff, 0); vm.Power != hypervisor.PowerOff {
				l.t.Errorf("after power off the vm is %s", vm.Power)
			}
		},
		"destroy": func(l *lab, d *Driver) { l.destroyAndCheck(d) },
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, testhost.Idle)
			d := l.driver()
			d.monitorWait, d.quitWait = noAnswer, noAnswer
			for what, end := range ends {
				l.create(d)
				l.note(d, l.start(tt.program), tt.left)
				if vm, err := d.GetVM(testContext(t), testRef()); err != nil || vm.Power != hypervisor.PowerOn {
					t.Errorf("the vm reads as %s, %v, want on", vm.Power, err)
				}
				end(l, d)
				if pids := l.pids(); len(pids) > 0 {
					t.Errorf("programs left after %s: %v", what, pids)
				}
			}
		})
	}
}

// What may be another VM's is not killed, and nothing is said to have ended.
func TestStrangersProgramIsLeftAndTold(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		run  bool // the VM was started, and its program has ended
	}{
		"never started":           {args: []string{"sleep", "600"}},
		"never started, of a vm":  {args: []string{"sh", "-c", "read x", machine.MarkFlag, otherMark}},
		"started before, of a vm": {args: []string{"sh", "-c", "read x", machine.MarkFlag, otherMark}, run: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, testhost.Idle)
			d := l.driver()
			d.monitorWait, d.quitWait = noAnswer, noAnswer
			l.create(d)
			pid := strconv.Itoa(l.start(testhost.Program{Args: tt.args}))
			if tt.run {
				l.note(d, os.Getpid(), true)
			}
			for _, target := range []hypervisor.Power{hypervisor.PowerOff, hypervisor.PowerOn} {
				if _, err := d.SetPower(testContext(t), testRef(), target, 0); !errors.Is(err, fault.Unavailable) {
					t.Errorf("set power %s: %v, want unavailable", target, err)
				}
			}
			if err := d.DestroyVM(testContext(t), testRef()); !errors.Is(err, fault.Unavailable) || fault.HintOf(err) == "" {
				t.Errorf("destroy: %v (%s), want unavailable", err, fault.HintOf(err))
			}
			if _, err := os.Stat(d.store.Path(testVMID, diskName)); err != nil {
				t.Errorf("disk: %v", err)
			}
			// Nor without the record, which somebody may have removed.
			if err := d.store.Remove(testVMID); err != nil {
				t.Fatal(err)
			}
			if err := d.DestroyVM(testContext(t), testRef()); !errors.Is(err, fault.Unavailable) {
				t.Errorf("destroy without record: %v, want unavailable", err)
			}
			if pids := l.pids(); len(pids) != 1 || pids[0] != pid {
				t.Errorf("programs = %v, want %s", pids, pid)
			}
		})
	}
}

// A search that failed has found nothing out.
func TestFailedSearchIsNoEnd(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	d.find = func(uint32) ([]procfs.Identity, error) { return nil, errors.New("not today") }
	if err := d.unusedUser(testVMID); !errors.Is(err, fault.Unavailable) {
		t.Errorf("unused user: %v, want unavailable", err)
	}
	for _, target := range []hypervisor.Power{hypervisor.PowerOff, hypervisor.PowerOn} {
		if _, err := d.SetPower(testContext(t), testRef(), target, 0); !errors.Is(err, fault.Unavailable) {
			t.Errorf("set power %s: %v, want unavailable", target, err)
		}
	}
	if err := d.DestroyVM(testContext(t), testRef()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("destroy: %v, want unavailable", err)
	}
	if _, err := os.Stat(d.store.Path(testVMID, diskName)); err != nil {
		t.Errorf("disk: %v", err)
	}
	if err := d.DestroyVM(testContext(t), hypervisor.Ref{VMID: testVMID + 1, Owner: testOwner}); !errors.Is(err, fault.Unavailable) {
		t.Errorf("destroy of a vm without record: %v, want unavailable", err)
	}
}
