package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// newNamedLab has a VM whose start was cut off when its guest might be let go.
func newNamedLab(t *testing.T, step string) *lab {
	l := newWarmLab(t)
	l.create(l.driver())
	l.killedIn("start", step)
	return l
}

// A guest that may have spent its token is not ended for one that has the same:
// whatever fails from there on, the guest is the one that goes on.
func TestGuestThatMayBeAtWorkIsKept(t *testing.T) {
	t.Parallel()
	gone := fault.New(fault.Timeout, "it does not answer")
	for name, spoil := range map[string]func(l *lab, d *Driver){
		"go is not answered": func(l *lab, _ *Driver) { l.guest.stays = gone },
		"no channel": func(l *lab, d *Driver) {
			path := d.store.Path(testVMID, channelName)
			if err := os.Rename(path, path+".away"); err != nil {
				l.t.Fatal(err)
			}
		},
		"no monitor": func(l *lab, d *Driver) {
			path := d.store.Path(testVMID, monitorName)
			if err := os.Rename(path, path+".away"); err != nil {
				l.t.Fatal(err)
			}
		},
	} {
		for _, step := range []string{"naming", "gone"} {
			t.Run(name+" after "+step, func(t *testing.T) {
				l := newNamedLab(t, step)
				before := l.pids()
				d := l.driver()
				spoil(l, d)
				for range 2 {
					if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerOn, 0); err == nil {
						t.Error("the start succeeded")
					}
				}
				l.create(d) // a repeat of it ends nobody either
				if after := l.pids(); !cmp.Equal(before, after) || len(after) != 1 {
					t.Errorf("programs before %v, after %v", before, after)
				}
				l.guest.stays = nil
				for _, name := range []string{channelName, monitorName} {
					path := d.store.Path(testVMID, name)
					if err := os.Rename(path+".away", path); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Fatal(err)
					}
				}
				vm := l.power(l.driver(), hypervisor.PowerOn, 0)
				if after := l.pids(); !cmp.Equal(before, after) || vm.Start.Way != hypervisor.WayMemory {
					t.Errorf("vm = %+v, programs before %v, after %v", vm, before, after)
				}
				if len(l.guest.assumed) > 0 {
					t.Errorf("it got another identity: %v", l.guest.assumed)
				}
				l.destroyAndCheck(d)
			})
		}
	}
}

// The same within one call.
func TestStartFailsWhenTheGuestDoesNotGo(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	l.guest.stays = fault.New(fault.Unavailable, "it hung up")
	if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerOn, 0); !errors.Is(err, fault.Unavailable) {
		t.Errorf("err = %v", err)
	}
	before := l.pids()
	l.guest.stays = nil
	l.power(d, hypervisor.PowerOn, 0)
	if after := l.pids(); len(before) != 1 || !cmp.Equal(before, after) || len(l.guest.assumed) != 1 {
		t.Errorf("programs before %v, after %v, %d identities given", before, after, len(l.guest.assumed))
	}
	l.destroyAndCheck(d)
}

// A record that cannot be written is no leave to go: the guest is ended, which has
// spent nothing, and the next start begins anew.
func TestGuestIsNotLetGoUnrecorded(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	dir := d.store.Dir(testVMID)
	d.crash = func(step string) {
		if step == "named" { // the record's place is taken
			if err := errors.Join(os.Rename(filepath.Join(dir, "vm.json"), filepath.Join(dir, "kept")), os.MkdirAll(filepath.Join(dir, "vm.json", "x"), 0o755)); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerOn, 0); err == nil {
		t.Error("the start succeeded")
	}
	if l.guest.went > 0 || len(l.pids()) > 0 {
		t.Errorf("let go %d times, programs %v", l.guest.went, l.pids())
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "vm.json")), os.Rename(filepath.Join(dir, "kept"), filepath.Join(dir, "vm.json"))); err != nil {
		t.Fatal(err)
	}
	d = l.driver()
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayMemory || l.guest.went != 1 || len(l.guest.assumed) != 2 {
		t.Errorf("vm = %+v, let go %d times, %d identities", vm, l.guest.went, len(l.guest.assumed))
	}
	l.destroyAndCheck(d)
}

// Ended there, by itself or by a call, a VM is one that has run: the next start is
// from its own disk.
func TestEndOfAGuestThatMayBeAtWork(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(l *lab, d *Driver){
		"qemu died": func(l *lab, d *Driver) {
			v, err := d.store.Load(testVMID)
			if err != nil {
				l.t.Fatal(err)
			}
			if err := d.kill(testContext(l.t), d.tenant(v)); err != nil {
				l.t.Fatal(err)
			}
		},
		"off":  func(l *lab, d *Driver) { l.power(d, hypervisor.PowerOff, 0) },
		"shut": func(l *lab, d *Driver) { l.power(d, hypervisor.PowerShutdown, 10*time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newNamedLab(t, "naming")
			d := l.driver()
			disk := d.store.Path(testVMID, diskName)
			before, err := os.Stat(disk)
			if err != nil {
				t.Fatal(err)
			}
			end(l, d)
			if len(l.pids()) > 0 {
				t.Errorf("programs = %v", l.pids())
			}
			l.create(d)
			vm := l.power(d, hypervisor.PowerOn, 0)
			if vm.Start.Way != hypervisor.WayBoot || !strings.Contains(vm.Start.Reason, "has run before") {
				t.Errorf("start = %+v", vm.Start)
			}
			if after, err := os.Stat(disk); err != nil || !os.SameFile(before, after) {
				t.Errorf("the disk is another one, %v", err)
			}
			if len(l.guest.assumed) > 0 {
				t.Errorf("it got another identity: %v", l.guest.assumed)
			}
			l.destroyAndCheck(d)
		})
	}
}

// A guest that is being named must not come up by its seed disk.
func TestGuestThatRebootsBeforeItIsLetGo(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	var state record.RunState
	l.guest.assume = func(ctx context.Context) error {
		if err := d.command(ctx, testVMID, "system_reset"); err != nil {
			return err
		}
		v, err := d.store.Load(testVMID)
		if err != nil {
			return err
		}
		state = v.Run.State
		for len(l.pids()) > 0 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		return errors.Join(fault.New(fault.Unavailable, "it reboots"), ctx.Err())
	}
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot || !strings.Contains(vm.Start.Reason, "it reboots") || strings.Contains(vm.Start.Reason, "deadline") {
		t.Errorf("start = %+v", vm.Start)
	}
	if state != record.RunStarting || l.guest.went > 0 {
		t.Errorf("state %q, let go %d times", state, l.guest.went)
	}
	l.destroyAndCheck(d)
	l.guest.assume = nil
	d = l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	before := l.pids()
	if err := d.command(testContext(t), testVMID, "system_reset"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if after := l.pids(); !cmp.Equal(before, after) {
		t.Errorf("a reboot of a VM that is on ends it: programs before %v, after %v", before, after)
	}
	l.destroyAndCheck(d)
}
