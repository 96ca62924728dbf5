package driver

import (
	"errors"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// What a killed build left is found, whatever the configuration says by then.
func TestBuilderIsEndedAfterVMIDLastChanged(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]int32{"raised": 7, "lowered": -7} {
		t.Run(name, func(t *testing.T) {
			l := newMemoryLab(t)
			l.killedIn("warm", "settled")
			uid := l.config.UIDBase + l.config.VMIDLast + 1
			if found, err := procfs.Find(uid); err != nil || len(found) != 1 {
				t.Fatalf("builder: %v, %v", found, err)
			}
			l.config.VMIDLast += uint32(by)
			if err := l.driver().Tidy(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if found, err := procfs.Find(uid); err != nil || len(found) > 0 {
				t.Errorf("left: %v, %v", found, err)
			}
		})
	}
}

// A guest that took its builder over has only the user and the pid left.
func TestTakenOverBuilderIsEnded(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		program testhost.Program
		other   bool // than the one that was started, which has ended
	}{
		"arguments overwritten":        {program: testhost.Program{Args: []string{"sleep", "600"}}},
		"arguments of a vm":            {program: testhost.Program{Args: []string{"sh", "-c", "read x", machine.MarkFlag, otherMark}}},
		"first thread ended":           {program: testhost.Program{Headless: true}},
		"another program in its stead": {program: testhost.Program{Args: []string{"sleep", "600"}}, other: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newMemoryLab(t)
			d := l.driver()
			l.noteBuilder(d, tt.program, tt.other)
			l.warm(d)
			if pids := l.builders(); len(pids) > 0 {
				t.Errorf("left: %v", pids)
			}
		})
	}
}

// noteBuilder notes a program as the one that makes a template.
func (l *lab) noteBuilder(d *Driver, p testhost.Program, ended bool) {
	l.t.Helper()
	p.UID = d.uid(d.buildVMID())
	pid := testhost.Start(l.t, p)
	st, err := procfs.ReadStat(pid)
	if err != nil {
		l.t.Fatal(err)
	}
	if ended {
		st.StartTicks--
	}
	b := memory.Builder{UID: p.UID, Mark: otherMark + "x", BootID: d.bootID, PID: pid, StartTicks: st.StartTicks}
	if err := d.memory.NoteBuilder(b); err != nil {
		l.t.Fatal(err)
	}
}

// After vmid_last was lowered the number behind it may be a VM's.
func TestBuilderIsNoVMsUser(t *testing.T) {
	l := newMemoryLab(t)
	l.create(l.driver())
	l.config.VMIDLast = testVMID - 1
	d := l.driver()
	// Off, so that only its record tells, and on.
	for _, power := range []hypervisor.Power{hypervisor.PowerOff, hypervisor.PowerOn} {
		l.power(d, power, 0)
		before := l.pids()
		if _, err := d.WarmTemplate(testContext(t), testWarmRequest(), nil); !errors.Is(err, fault.Exists) || fault.HintOf(err) == "" {
			t.Errorf("vm %s: warm: %v, want exists", power, err)
		}
		if err := d.Tidy(testContext(t)); err != nil {
			t.Errorf("vm %s: tidy: %v", power, err)
		}
		if after := l.pids(); len(after) != len(before) {
			t.Errorf("vm %s: programs before %v, after %v", power, before, after)
		}
	}
	if b, err := d.memory.Builder(); b != nil || err != nil {
		t.Errorf("note: %+v, %v", b, err)
	}
	l.destroyAndCheck(d)
}

// While vmid_last is being raised the plugin before may be making a template.
func TestVMIsNotGivenTheBuildersUser(t *testing.T) {
	l := newMemoryLab(t)
	d := l.driver()
	b := memory.Builder{UID: d.uid(testVMID), Mark: record.Mark(1, "x"), BootID: d.bootID}
	if err := d.memory.NoteBuilder(b); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CreateVM(testContext(t), testRequest(), nil); !errors.Is(err, fault.Exists) || fault.HintOf(err) == "" {
		t.Errorf("create: %v, want exists", err)
	}
	if err := d.Tidy(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l.create(d)
	l.destroyAndCheck(d)
}

// What is not the builder's is left alone and told.
func TestStrangerAsBuilder(t *testing.T) {
	l := newMemoryLab(t)
	d := l.driver()
	testhost.Start(t, testhost.Program{Args: []string{"sleep", "600"}, UID: d.uid(d.buildVMID())})
	for range 2 {
		if _, err := d.WarmTemplate(testContext(t), testWarmRequest(), nil); !errors.Is(err, fault.Exists) || fault.HintOf(err) == "" {
			t.Errorf("warm: %v, want exists", err)
		}
	}
	if pids := l.builders(); len(pids) != 1 {
		t.Errorf("programs = %v", pids)
	}
}
