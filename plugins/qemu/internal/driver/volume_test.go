package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/plugins/qemu/internal/volume"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	volumeOwner = "agentlab:11111111-2222-3333-4444-555555555555/ws_test"
	volumeBytes = 8 << 20
)

func volumeRef() hypervisor.VolumeRef {
	return hypervisor.VolumeRef{ID: volume.ID(volumeOwner), Owner: volumeOwner}
}

func (l *lab) volume(d *Driver) hypervisor.Volume {
	l.t.Helper()
	v, err := d.CreateVolume(testContext(l.t), hypervisor.VolumeRequest{Owner: volumeOwner, SizeBytes: volumeBytes})
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

func (l *lab) attach(d *Driver, serial string) {
	l.t.Helper()
	v, err := d.AttachVolume(testContext(l.t), testRef(), volumeRef(), serial)
	if err != nil {
		l.t.Fatal(err)
	}
	if v.AttachedVMID != testVMID || v.Serial != serial {
		l.t.Errorf("attached volume reads as %+v", v)
	}
}

func (l *lab) detach(d *Driver) {
	l.t.Helper()
	v, err := d.DetachVolume(testContext(l.t), testRef(), volumeRef())
	if err != nil {
		l.t.Fatal(err)
	}
	if v.AttachedVMID != 0 || v.Serial != "" {
		l.t.Errorf("detached volume reads as %+v", v)
	}
	l.ownedBy(d, 0)
}

// ownedBy wants the file of the volume to be that user's alone.
func (l *lab) ownedBy(d *Driver, uid uint32) {
	l.t.Helper()
	st, err := os.Stat(d.volumes.Disk(volume.ID(volumeOwner)))
	if err != nil {
		l.t.Fatal(err)
	}
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != uid || sys.Gid != uid || st.Mode().Perm() != 0o600 {
		l.t.Errorf("the volume's file is %d:%d %04o, want %d alone", sys.Uid, sys.Gid, st.Mode().Perm(), uid)
	}
}

// guestSees lists the serials of the disks that QEMU shows the guest.
func (l *lab) guestSees(d *Driver) (serials []string) {
	l.t.Helper()
	err := d.ask(testContext(l.t), testVMID, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		found, err := devices(ctx, c)
		for _, id := range found {
			var serial string
			if strings.HasPrefix(id, "vol-") && err == nil {
				err = c.Execute(ctx, "qom-get", map[string]any{"path": "/machine/peripheral/" + id, "property": "serial"}, &serial)
				serials = append(serials, serial)
			}
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return serials
}

// holds wants the first bytes of a disk to be this pattern.
func holds(t *testing.T, path string, pattern int) {
	t.Helper()
	if !holdsPattern(path, pattern) {
		t.Errorf("%s does not hold pattern %d", path, pattern)
	}
}

func holdsPattern(path string, pattern int) bool {
	return exec.Command("qemu-io", "-f", "qcow2", "-r", "-c", fmt.Sprintf("read -P %d 0 64k", pattern), path).Run() == nil
}

func fill(t *testing.T, path string, pattern int) {
	t.Helper()
	out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -P %d 0 64k", pattern), path).CombinedOutput()
	if err != nil {
		t.Fatalf("write to %s: %v: %s", path, err, out)
	}
}

func TestVolumeComesAndGoes(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	first := l.volume(d)
	if again := l.volume(l.driver()); !cmp.Equal(first, again) || first.SizeBytes != volumeBytes {
		t.Errorf("first %+v, again %+v", first, again)
	}
	l.ownedBy(d, 0)
	for name, ref := range map[string]hypervisor.VolumeRef{
		"stranger": {ID: first.Ref.ID, Owner: volumeOwner + "x"}, "nobody": {ID: first.Ref.ID},
	} {
		if err := d.DeleteVolume(testContext(t), ref); !errors.Is(err, fault.Precondition) {
			t.Errorf("delete by %s: %v, want precondition", name, err)
		}
	}
	for range 2 { // gone is success
		if err := d.DeleteVolume(testContext(t), volumeRef()); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{first.Ref.ID, "", "../vms", "zz"} {
		if _, err := d.GetVolume(testContext(t), hypervisor.VolumeRef{ID: id}); !errors.Is(err, fault.NotFound) {
			t.Errorf("get of %q: %v, want not found", id, err)
		}
	}
	if left, err := os.ReadDir(l.state + "/volumes"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestVolumeRequestsAreChecked(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	for name, req := range map[string]hypervisor.CloneRequest{
		"no size":  {VolumeRequest: hypervisor.VolumeRequest{Owner: volumeOwner}},
		"no owner": {VolumeRequest: hypervisor.VolumeRequest{SizeBytes: 1 << 20}},
		"too big":  {VolumeRequest: hypervisor.VolumeRequest{Owner: volumeOwner, SizeBytes: 1 << 60}},
		"pool":     {VolumeRequest: hypervisor.VolumeRequest{Owner: volumeOwner, SizeBytes: 1 << 20, Pool: "elsewhere"}},
	} {
		if _, err := d.CloneVolume(testContext(t), req); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	odd, err := d.CreateVolume(testContext(t), hypervisor.VolumeRequest{Owner: volumeOwner, SizeBytes: 1<<20 + 1})
	if err != nil || odd.SizeBytes != 2<<20 {
		t.Errorf("odd size: %+v, %v", odd, err)
	}
}

// A volume is attached to a VM that is off and to one that is on; what the VM had
// when it was stopped it has when it starts again.
func TestAttachColdAndHot(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.volume(d)
	uid := l.config.UIDBase + testVMID

	l.attach(d, "cold")
	l.power(d, hypervisor.PowerOn, 0)
	l.ownedBy(d, uid)
	if got := l.guestSees(d); !slices.Equal(got, []string{"cold"}) {
		t.Errorf("started with disks %v", got)
	}
	d.guestWait = 300 * time.Millisecond
	// Its guest has no runner that could say that it does not use the disk.
	if _, err := d.DetachVolume(testContext(t), testRef(), volumeRef()); !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
		t.Errorf("detach from a guest that says nothing: %v, want precondition", err)
	}
	if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerPaused, 0); err != nil {
		t.Fatal(err)
	}
	_, err := d.DetachVolume(testContext(t), testRef(), volumeRef())
	if !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("detach from a paused guest: %v, want precondition that says so", err)
	}
	if got := l.guestSees(d); !slices.Equal(got, []string{"cold"}) {
		t.Errorf("after refused detaches: %v", got)
	}
	l.power(d, hypervisor.PowerOff, 0)
	l.detach(d)
	l.detach(d) // it is detached already

	l.power(d, hypervisor.PowerOn, 0)
	if got := l.guestSees(d); len(got) > 0 {
		t.Errorf("started with disks %v after the detach", got)
	}
	l.attach(d, "hot")
	l.attach(l.driver(), "hot") // a repeat changes nothing
	l.ownedBy(d, uid)
	if got := l.guestSees(d); !slices.Equal(got, []string{"hot"}) {
		t.Errorf("the guest has %v", got)
	}
	l.power(d, hypervisor.PowerOff, 0)
	l.power(d, hypervisor.PowerOn, 0)
	if got := l.guestSees(d); !slices.Equal(got, []string{"hot"}) {
		t.Errorf("after stop and start the guest has %v", got)
	}
	if err := d.DeleteVolume(testContext(t), volumeRef()); !errors.Is(err, fault.Precondition) {
		t.Errorf("delete while attached: %v, want precondition", err)
	}
	// The VM goes, the volume stays.
	if err := d.DestroyVM(testContext(t), testRef()); err != nil {
		t.Fatal(err)
	}
	l.ownedBy(d, 0) // by that call, not by one that comes again
	l.destroyAndCheck(d)
	v, err := d.GetVolume(testContext(t), volumeRef())
	if err != nil || v.AttachedVMID != 0 {
		t.Errorf("after destroy: %+v, %v", v, err)
	}
	l.ownedBy(d, 0)
}

func TestAttachIsRefused(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.volume(d)
	ctx := testContext(t)
	other, err := d.CreateVolume(ctx, hypervisor.VolumeRequest{Owner: volumeOwner + "2", SizeBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l.attach(d, "work")
	second := testRequest()
	second.Ref.VMID++
	second.NIC.MAC = "52:54:00:00:10:02"
	if _, err := d.CreateVM(ctx, second, nil); err != nil {
		t.Fatal(err)
	}
	strange, strangeVM := volumeRef(), testRef()
	strange.Owner += "x"
	strangeVM.Owner += "x"
	tests := map[string]struct {
		vm     hypervisor.Ref
		volume hypervisor.VolumeRef
		serial string
		want   fault.Class
	}{
		"another vm has it":     {second.Ref, volumeRef(), "work", fault.Precondition},
		"another serial":        {testRef(), volumeRef(), "other", fault.Precondition},
		"somebody else's":       {testRef(), strange, "work", fault.Precondition},
		"vm of somebody else":   {strangeVM, volumeRef(), "work", fault.Precondition},
		"serial in use":         {testRef(), other.Ref, "work", fault.Exists},
		"serial of the root":    {testRef(), other.Ref, "root", fault.Exists},
		"serial with an option": {testRef(), other.Ref, "a,b=c", fault.Invalid},
		"no such volume":        {testRef(), hypervisor.VolumeRef{ID: volume.ID("x"), Owner: "x"}, "x", fault.NotFound},
		"no such vm":            {hypervisor.Ref{VMID: 1500, Owner: testOwner}, other.Ref, "x", fault.NotFound},
	}
	for name, tt := range tests {
		if _, err := d.AttachVolume(ctx, tt.vm, tt.volume, tt.serial); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	if _, err := d.DetachVolume(ctx, second.Ref, volumeRef()); !errors.Is(err, fault.Precondition) {
		t.Errorf("detach from a vm that does not have it: %v, want precondition", err)
	}
	if v, err := d.GetVolume(ctx, volumeRef()); err != nil || v.AttachedVMID != testVMID || v.Serial != "work" {
		t.Errorf("after refused calls: %+v, %v", v, err)
	}
	if err := d.DestroyVM(ctx, second.Ref); err != nil {
		t.Fatal(err)
	}
}

// A guest that took over its QEMU can write what it likes into the file.
func TestDamagedVolumeIsNotOpened(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.volume(d)
	path := d.volumes.Disk(volume.ID(volumeOwner))
	secret := l.state + "/secret"
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", secret, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx := testContext(t)
	_, attach := d.AttachVolume(ctx, testRef(), volumeRef(), "work")
	_, snapshot := d.SnapshotVolume(ctx, volumeRef(), "before", hypervisor.SnapshotCreate)
	_, clone := d.CloneVolume(ctx, hypervisor.CloneRequest{
		VolumeRequest: hypervisor.VolumeRequest{Owner: volumeOwner + "2"}, FromVolume: volumeRef().ID,
	})
	for what, err := range map[string]error{"attach": attach, "snapshot": snapshot, "clone": clone} {
		if !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v, want precondition", what, err)
		}
	}
	if _, err := d.GetVolume(ctx, hypervisor.VolumeRef{ID: volume.ID(volumeOwner + "2")}); !errors.Is(err, fault.NotFound) {
		t.Errorf("the clone that failed: %v, want not found", err)
	}
	// It can be thrown away.
	if err := d.DeleteVolume(ctx, volumeRef()); err != nil {
		t.Error(err)
	}
}

func TestVolumeSnapshotsAndClones(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.volume(d)
	ctx := testContext(t)
	path := d.volumes.Disk(volume.ID(volumeOwner))
	act := func(name string, action hypervisor.SnapshotAction, want ...string) {
		t.Helper()
		for range 2 { // a repeat is the same
			v, err := d.SnapshotVolume(ctx, volumeRef(), name, action)
			if err != nil || !slices.Equal(v.Snapshots, want) {
				t.Errorf("%s of %s: %+v, %v, want %v", action, name, v, err, want)
			}
		}
		l.ownedBy(d, 0)
	}
	fill(t, path, 1)
	act("one", hypervisor.SnapshotCreate, "one")
	fill(t, path, 2)
	act("two", hypervisor.SnapshotCreate, "one", "two")
	fill(t, path, 3)

	l.attach(d, "work") // to a vm that is off
	clone := func(owner, snapshot string, pattern int) {
		t.Helper()
		req := hypervisor.CloneRequest{
			VolumeRequest: hypervisor.VolumeRequest{Owner: owner, SizeBytes: 12 << 20}, FromVolume: volumeRef().ID, FromSnapshot: snapshot,
		}
		for range 2 {
			v, err := d.CloneVolume(ctx, req)
			if err != nil || v.SizeBytes != 12<<20 || v.Ref.Owner != owner {
				t.Fatalf("clone: %+v, %v", v, err)
			}
		}
		holds(t, d.volumes.Disk(volume.ID(owner)), pattern)
	}
	clone(volumeOwner+"-now", "", 3)
	clone(volumeOwner+"-then", "one", 1)
	act("one", hypervisor.SnapshotRollback, "one", "two")
	holds(t, path, 1)
	act("two", hypervisor.SnapshotRollback, "one", "two")
	holds(t, path, 2)
	act("one", hypervisor.SnapshotDelete, "two")
	if _, err := d.SnapshotVolume(ctx, volumeRef(), "one", hypervisor.SnapshotRollback); !errors.Is(err, fault.NotFound) {
		t.Errorf("rollback to what is gone: %v, want not found", err)
	}
	holds(t, d.volumes.Disk(volume.ID(volumeOwner+"-then")), 1)
	small := hypervisor.CloneRequest{
		VolumeRequest: hypervisor.VolumeRequest{Owner: volumeOwner + "-small", SizeBytes: 1 << 20}, FromVolume: volumeRef().ID,
	}
	if _, err := d.CloneVolume(ctx, small); !errors.Is(err, fault.Invalid) {
		t.Errorf("clone that is smaller: %v, want invalid", err)
	}

	l.power(d, hypervisor.PowerOn, 0)
	small.SizeBytes = 0
	_, err := d.CloneVolume(ctx, small)
	if !errors.Is(err, fault.Precondition) {
		t.Errorf("clone of what a running vm has: %v, want precondition", err)
	}
	for _, action := range []hypervisor.SnapshotAction{hypervisor.SnapshotCreate, hypervisor.SnapshotRollback, hypervisor.SnapshotDelete} {
		if _, err := d.SnapshotVolume(ctx, volumeRef(), "two", action); !errors.Is(err, fault.Precondition) {
			t.Errorf("%s while a running vm has it: %v, want precondition", action, err)
		}
	}
	l.power(d, hypervisor.PowerOff, 0)
	act("two", hypervisor.SnapshotDelete)
}
