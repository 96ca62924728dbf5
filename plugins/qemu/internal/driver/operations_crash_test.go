package driver

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/plugins/qemu/internal/volume"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const cloneOwner = volumeOwner + "-clone"

// operations are what a stand-in may be killed in.
var operations = map[string]func(context.Context, *Driver) error{
	"volume": func(ctx context.Context, d *Driver) error {
		_, err := d.CreateVolume(ctx, hypervisor.VolumeRequest{Owner: volumeOwner, SizeBytes: volumeBytes})
		return err
	},
	"clone": func(ctx context.Context, d *Driver) error {
		_, err := d.CloneVolume(ctx, hypervisor.CloneRequest{
			VolumeRequest: hypervisor.VolumeRequest{Owner: cloneOwner}, FromVolume: volumeRef().ID,
		})
		return err
	},
	"attach": func(ctx context.Context, d *Driver) error {
		_, err := d.AttachVolume(ctx, testRef(), volumeRef(), "work")
		return err
	},
	// The guest here has no runner to ask: this is the part after its answer.
	"unplug": func(ctx context.Context, d *Driver) error {
		v, err := d.volumes.Load(volumeRef().ID)
		if err == nil {
			err = d.unplug(ctx, testVMID, plug(d.volumes, v))
		}
		if err == nil {
			err = d.release(v)
		}
		return err
	},
	"detach": func(ctx context.Context, d *Driver) error {
		_, err := d.DetachVolume(ctx, testRef(), volumeRef())
		return err
	},
	"keep volume": func(ctx context.Context, d *Driver) error {
		_, err := d.SnapshotVolume(ctx, volumeRef(), "before", hypervisor.SnapshotCreate)
		return err
	},
	"keep": func(ctx context.Context, d *Driver) error {
		_, err := d.CreateSnapshot(ctx, testRef(), "before", false)
		return err
	},
	"keep memory": func(ctx context.Context, d *Driver) error {
		_, err := d.CreateSnapshot(ctx, testRef(), "before", true)
		return err
	},
	"roll back": func(ctx context.Context, d *Driver) error {
		_, err := d.RollbackSnapshot(ctx, testRef(), "before")
		return err
	},
	"forget": func(ctx context.Context, d *Driver) error {
		_, err := d.DeleteSnapshot(ctx, testRef(), "before")
		return err
	},
}

// again makes the call in this process, as its caller does after a crash.
func (l *lab) again(d *Driver, call string) {
	l.t.Helper()
	if err := operations[call](testContext(l.t), d); err != nil {
		l.t.Fatalf("%s again: %v", call, err)
	}
}

func TestVolumeCallsConvergeAfterKill(t *testing.T) {
	l := newLab(t, testhost.Idle)
	for _, step := range []string{"volume-claimed", "volume-made"} {
		l.killedIn("volume", step)
		d := l.driver()
		if err := d.DeleteVolume(testContext(t), volumeRef()); err != nil {
			t.Errorf("delete of a half-made volume: %v", err)
		}
		l.killedIn("volume", step)
		l.again(d, "volume")
		l.ownedBy(d, 0)
		fill(t, d.volumes.Disk(volumeRef().ID), 1)

		l.killedIn("clone", step)
		l.again(d, "clone")
		holds(t, d.volumes.Disk(volume.ID(cloneOwner)), 1)
		l.ownedBy(d, 0)
		for _, owner := range []string{volumeOwner, cloneOwner} {
			if err := d.DeleteVolume(testContext(t), hypervisor.VolumeRef{ID: volume.ID(owner), Owner: owner}); err != nil {
				t.Error(err)
			}
		}
	}
	for _, step := range []string{"volume-snapshot-noted", "volume-snapshot-made"} {
		d := l.driver()
		l.volume(d)
		l.killedIn("keep volume", step)
		if v, err := d.GetVolume(testContext(t), volumeRef()); err != nil || len(v.Snapshots) > 0 {
			t.Errorf("a snapshot that was not answered shows: %+v, %v", v, err)
		}
		l.again(d, "keep volume")
		if v, err := d.GetVolume(testContext(t), volumeRef()); err != nil || !slices.Equal(v.Snapshots, []string{"before"}) {
			t.Errorf("%+v, %v", v, err)
		}
		if err := d.DeleteVolume(testContext(t), volumeRef()); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(l.state + "/volumes"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAttachAndDetachConvergeAfterKill(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.volume(d)
	l.power(d, hypervisor.PowerOn, 0)
	see := func(want ...string) {
		t.Helper()
		if got := l.guestSees(d); !slices.Equal(got, want) {
			t.Errorf("the guest has %v, want %v", got, want)
		}
	}
	for _, step := range []string{"attach-noted", "volume-given", "volume-opened"} {
		l.killedIn("attach", step)
		l.again(d, "attach")
		see("work")
		l.again(d, "unplug")
		see()
		l.ownedBy(d, 0)
	}
	for _, step := range []string{"volume-unplugged", "volume-taken-back"} {
		l.again(d, "attach")
		l.killedIn("unplug", step)
		if v, err := d.GetVolume(testContext(t), volumeRef()); err != nil || v.AttachedVMID != testVMID {
			t.Errorf("a detach that was not answered shows: %+v, %v", v, err)
		}
		l.again(d, "detach") // there is nothing left to ask the guest
		see()
		l.ownedBy(d, 0)
	}
	// A crash, and the VM is stopped and started instead of a repeat.
	l.killedIn("attach", "attach-noted")
	l.power(d, hypervisor.PowerOff, 0)
	l.power(d, hypervisor.PowerOn, 0)
	see("work")
	l.power(d, hypervisor.PowerOff, 0)
	l.killedIn("detach", "volume-taken-back")
	l.power(d, hypervisor.PowerOn, 0)
	see("work")
	for _, step := range []string{"killed", "volume-taken-back", "volumes-freed"} {
		l.killedIn("destroy", step)
		l.destroyAndCheck(d)
		l.ownedBy(d, 0)
		if v, err := d.GetVolume(testContext(t), volumeRef()); err != nil || v.AttachedVMID != 0 {
			t.Errorf("after the destroy: %+v, %v", v, err)
		}
		l.create(d)
		l.attach(d, "work")
	}
}

func TestSnapshotCallsConvergeAfterKill(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	root := d.store.Path(testVMID, diskName)
	for _, power := range []hypervisor.Power{hypervisor.PowerOff, hypervisor.PowerOn} {
		l.power(d, power, 0)
		for _, call := range []string{"keep", "keep memory"} {
			if call == "keep memory" && power == hypervisor.PowerOff {
				continue
			}
			for _, step := range []string{"snapshot-noted", "snapshot-made"} {
				l.killedIn(call, step)
				l.wantSnapshots(d, "")
				l.again(d, call)
				l.wantSnapshots(d, "before")
				l.killedIn("forget", "snapshot-condemned")
				l.wantSnapshots(d, "")
				l.again(d, "forget")
			}
		}
	}
	l.again(d, "keep memory")
	for _, step := range []string{"rollback-off", "announced", "spawned", "answered", "recorded"} {
		l.killedIn("roll back", step)
		l.again(d, "roll back")
		if vm, err := d.GetVM(testContext(t), testRef()); err != nil || vm.Power != hypervisor.PowerOn {
			t.Errorf("after the rollback: %+v, %v", vm, err)
		}
	}
	l.power(d, hypervisor.PowerOff, 0)
	if out, err := exec.Command("qemu-img", "check", "-q", root).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	l.destroyAndCheck(d)
}

// What qemu-img writes must not go on beside the call that comes again.
func TestToolEndsWithItsPlugin(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.volume(d)
	l.killedIn("clone", "volume-made")
	if found, err := procfs.Find(d.keeper()); err != nil || len(found) > 0 {
		t.Errorf("programs of the keeper: %v, %v", found, err)
	}
	v, err := d.volumes.Load(volume.ID(cloneOwner))
	if err != nil || v.State != volume.StateCreating {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := d.GetVolume(testContext(t), hypervisor.VolumeRef{ID: v.ID}); err == nil {
		t.Error("a half-made volume reads as whole")
	}
}
