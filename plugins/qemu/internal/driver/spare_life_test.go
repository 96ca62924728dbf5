package driver

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
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

// A VM keeps the user of the spare that it was, and whatever runs as that is to be found
// without the VM's folder, too.
func TestFormerSpareIsFoundForLife(t *testing.T) {
	l, d := spareLab(t)
	d.cfg.Spares = 0
	l.power(d, hypervisor.PowerOn, 0)
	l.power(d, hypervisor.PowerOff, 0)
	for name, start := range map[string]func(){
		"started again": func() { l.power(d, hypervisor.PowerOn, 0) },
		"cut short":     func() { l.killedIn("start", "spawned") },
	} {
		t.Run(name, func(t *testing.T) {
			start()
			now := l.strays()
			if len(now) != 1 {
				t.Fatalf("programs = %v", now)
			}
			if n, err := d.store.Former(testVMID); err != nil || n == nil || name == "started again" && n.PID != now[0].PID {
				t.Errorf("note %+v, %v: want the program %v", n, err, now[0])
			}
			dir := d.store.Dir(testVMID)
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			if err := d.DestroyVM(testContext(t), testRef()); err != nil {
				t.Error(err)
			}
			l.endStrays("destroyed")
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
		})
	}
	l.destroyAndCheck(d)
	if n, err := d.store.Former(testVMID); n != nil || err != nil {
		t.Errorf("note left: %+v, %v", n, err)
	}
}

// endStrays says that there should be none.
func (l *lab) endStrays(after string) {
	l.t.Helper()
	left := l.strays()
	if len(left) > 0 {
		l.t.Errorf("%s, and programs left: %v", after, left)
	}
	for _, id := range left {
		_ = unix.Kill(id.PID, unix.SIGKILL)
	}
}

// What was not ended is to be found again, and what was is not looked for.
func TestFormerSpareThatIsNotEnded(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	if err := d.store.NoteFormer(testContext(t), testVMID, record.Spare{Owner: testOwner, UID: d.uid(testVMID)}); err != nil {
		t.Fatal(err)
	}
	v, err := d.store.Load(testVMID)
	if err != nil {
		t.Fatal(err)
	}
	d.find = func(uint32) ([]procfs.Identity, error) { return nil, errors.New("not today") }
	if err := d.startWith(testContext(t), v, start{}); !errors.Is(err, fault.Unavailable) {
		t.Errorf("start: %v, want unavailable", err)
	}
	if n, err := d.store.Former(testVMID); n == nil || err != nil {
		t.Errorf("note: %+v, %v", n, err)
	}
	d.find = procfs.Find
	l.power(d, hypervisor.PowerOff, 0)
	if n, err := d.store.Former(testVMID); n != nil || err != nil {
		t.Errorf("note left: %+v, %v", n, err)
	}
}

// A destroy that is cut short leaves no note to be taken for the next who has the user.
func TestDestroyOfFormerSpareConvergesAfterKill(t *testing.T) {
	l, d := spareLab(t)
	d.cfg.Spares = 0
	l.power(d, hypervisor.PowerOn, 0)
	if err := d.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l.killedIn("destroy", "unnoted")
	if n, err := d.store.Former(testVMID); n != nil || err != nil {
		t.Errorf("note left: %+v, %v", n, err)
	}
	l.destroyAndCheck(l.driver())
	l.noSparesLeft()
}

// What a note says may have been true once: its user may be another's by now.
func TestStaleNoteOfFormerSpare(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"of another vm": true, "of nobody": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, testhost.Idle)
			d := l.driver()
			uid := l.config.spareUID()
			if known {
				l.claimVM(d, uid)
			}
			pid := testhost.Start(t, testhost.Program{UID: uid, Args: []string{"sleep", "600"}})
			n := record.Spare{Owner: testOwner, UID: uid, Mark: otherMark, BootID: d.bootID, PID: pid, StartTicks: 1}
			if err := d.store.NoteFormer(testContext(t), testVMID, n); err != nil {
				t.Fatal(err)
			}
			if err := d.DestroyVM(testContext(t), testRef()); known != (err == nil) || err != nil && !errors.Is(err, fault.Unavailable) {
				t.Errorf("destroy: %v", err)
			}
			if len(l.strays()) != 1 {
				t.Error("the program was ended")
			}
		})
	}
}

// claimVM has another VM be that user.
func (l *lab) claimVM(d *Driver, uid uint32) {
	l.t.Helper()
	if err := d.store.Claim(&record.VM{VMID: testVMID + 1, Owner: testOwner + "x", UID: uid}); err != nil {
		l.t.Fatal(err)
	}
}

// A create that meets a start from a spare that was cut short ends its program, and
// forgets it, whether it can make the VM or not.
func TestCreateAfterKilledStartFromSpare(t *testing.T) {
	t.Parallel()
	for name, there := range map[string]bool{"image is there": true, "image is gone": false} {
		t.Run(name, func(t *testing.T) {
			l := newMemoryLab(t)
			l.config.Spares = 1
			d := l.driver()
			l.warm(d)
			l.create(d)
			if err := d.Close(testContext(t)); err != nil {
				t.Fatal(err)
			}
			l.killedIn("start from spare", "answered")
			d = l.driver()
			if !there {
				if err := os.RemoveAll(l.config.TemplateDir); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.CreateVM(testContext(t), testRequest(), nil); there != (err == nil) {
				t.Errorf("create: %v", err)
			}
			l.endStrays("created")
			if n, err := d.store.Former(testVMID); n != nil || err != nil {
				t.Errorf("note left: %+v, %v", n, err)
			}
			l.destroyAndCheck(d)
		})
	}
}

// A folder that was removed by hand is no leave to forget what ran of it.
func TestCreateOverFormerSpare(t *testing.T) {
	l, d := spareLab(t)
	d.cfg.Spares = 0
	l.power(d, hypervisor.PowerOn, 0)
	if err := os.RemoveAll(d.store.Dir(testVMID)); err != nil {
		t.Fatal(err)
	}
	other := testRequest()
	other.Ref.Owner += "x"
	if _, err := d.CreateVM(testContext(t), other, nil); !errors.Is(err, fault.Exists) || fault.HintOf(err) == "" {
		t.Errorf("create for another: %v, want exists", err)
	}
	if len(l.strays()) != 1 {
		t.Errorf("programs after that: %v", l.strays())
	}
	l.create(d)
	l.endStrays("created")
	l.destroyAndCheck(d)
}

// What a killed plugin had as a spare is ended, even if a VM has its user: the plugin was
// killed before the spare could become that VM.
func TestEndOfLostSpare(t *testing.T) {
	t.Parallel()
	mark := record.Mark(testVMID, "spare guest")
	marked := []string{"sh", "-c", "read x", machine.MarkFlag, mark}
	tests := map[string]struct {
		args        []string
		vm          bool // has the user
		ended, told bool
	}{
		"its own":                 {args: marked, ended: true},
		"its own, and now a vm's": {args: marked, vm: true, ended: true},
		"a vm's":                  {args: []string{"sleep", "600"}, vm: true},
		"nobody's":                {args: []string{"sh", "-c", "read x", machine.MarkFlag, otherMark}, told: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, testhost.Idle)
			d := l.driver()
			uid := l.config.spareUID()
			pid := testhost.Start(t, testhost.Program{UID: uid, Args: tt.args})
			dir, err := d.store.ClaimSpare(testContext(t), record.Spare{UID: uid, Mark: mark, BootID: d.bootID, PID: pid, StartTicks: 1})
			if err != nil {
				t.Fatal(err)
			}
			dir.Close() // as the end of its process does
			if tt.vm {
				l.claimVM(d, uid)
			}
			if err := d.tidySpares(testContext(t)); tt.told != (err != nil) || err != nil && !errors.Is(err, fault.Unavailable) {
				t.Errorf("tidy: %v", err)
			}
			if ended := len(l.strays()) == 0; ended != tt.ended {
				t.Errorf("programs = %v, want them ended: %v", l.strays(), tt.ended)
			}
			_, err = os.Stat(dir.Dir())
			if kept := err == nil; kept != tt.told {
				t.Errorf("its folder is kept: %v", kept)
			}
		})
	}
}

// After vmid_last was raised a VM's number may lead to a spare's user.
func TestVMIsNotGivenASparesUser(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	dir, err := d.store.ClaimSpare(testContext(t), record.Spare{UID: d.uid(testVMID)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.CreateVM(testContext(t), testRequest(), nil); !errors.Is(err, fault.Exists) || fault.HintOf(err) == "" {
		t.Errorf("create: %v, want exists", err)
	}
	if err := dir.Remove(); err != nil {
		t.Fatal(err)
	}
	l.create(d)
	l.destroyAndCheck(d)
}

// Spares are given users behind those of VMs only, and none that a VM has.
func TestUsersOfSpares(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.config.VMIDFirst, l.config.Spares, l.config.MemoryTemplates = l.config.VMIDLast-1, 1, Auto // so there are three
	d := l.driver()
	first := l.config.spareUID()
	l.claimVM(d, first+1)
	var got []uint32
	for {
		dir, err := d.announceSpare(testContext(t))
		if err != nil {
			if !errors.Is(err, fault.Exhausted) {
				t.Fatal(err)
			}
			break
		}
		defer dir.Close()
		got = append(got, dir.Note.UID)
		if filepath.Base(dir.Dir()) != strconv.Itoa(int(dir.Note.UID)) {
			t.Errorf("folder %s of user %d", dir.Dir(), dir.Note.UID)
		}
	}
	if want := []uint32{first, first + 2}; !slices.Equal(got, want) {
		t.Errorf("users %v, want %v", got, want)
	}
}
