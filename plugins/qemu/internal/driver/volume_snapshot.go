package driver

import (
	"context"
	"errors"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/volume"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// SnapshotVolume implements hypervisor.VolumeSnapshotter.
func (d *Driver) SnapshotVolume(
	ctx context.Context, ref hypervisor.VolumeRef, name string, action hypervisor.SnapshotAction,
) (hypervisor.Volume, error) {
	var none hypervisor.Volume
	if err := hypervisor.CheckSnapshotName(name); err != nil {
		return none, err
	}
	do, ok := map[hypervisor.SnapshotAction]func(context.Context, *volume.Volume, string) error{
		hypervisor.SnapshotCreate:   d.keepVolume,
		hypervisor.SnapshotRollback: d.rollBackVolume,
		hypervisor.SnapshotDelete:   d.dropVolume,
	}[action]
	if !ok {
		return none, fault.New(fault.Invalid, "there is no action %q", action)
	}
	unlock, err := d.lockAtRest(ctx, ref.ID)
	if err != nil {
		return none, err
	}
	defer unlock()
	v, err := d.ownedVolume(ref)
	if err == nil {
		err = wholeVolume(v)
	}
	if err == nil {
		err = do(ctx, v, name)
	}
	if err != nil {
		return none, err
	}
	return d.volumeView(v)
}

// lockAtRest locks the volume and others, after the VM that has it, which must be
// off.
func (d *Driver) lockAtRest(ctx context.Context, id string, others ...string) (unlock func(), err error) {
	for {
		v, err := d.volumes.Load(id)
		if errors.Is(err, volume.ErrUnreadable) {
			return nil, unknownVolume(id, err)
		}
		if err != nil {
			return nil, err
		}
		free := func() {}
		if v.Attached != nil {
			if free, err = d.store.Lock(ctx, v.Attached.VMID); err != nil {
				return nil, err
			}
		}
		freeToo, err := d.volumes.Lock(ctx, append(others, id)...)
		if err != nil {
			free()
			return nil, err
		}
		unlock := func() {
			freeToo()
			free()
		}
		now, err := d.volumes.Load(id)
		if err == nil && sameHolder(v, now) {
			if err = d.holderIsOff(ctx, now); err == nil {
				return unlock, nil
			}
		}
		unlock()
		if err != nil {
			return nil, err
		}
		// It changed hands meanwhile.
	}
}

func sameHolder(a, b *volume.Volume) bool {
	if a.Attached == nil || b.Attached == nil {
		return a.Attached == b.Attached
	}
	return a.Attached.VMID == b.Attached.VMID
}

// holderIsOff is called with the VM locked.
func (d *Driver) holderIsOff(ctx context.Context, v *volume.Volume) error {
	holder, err := d.holder(v)
	if err != nil || holder == nil {
		return err
	}
	vm, err := d.store.Load(holder.VMID)
	if err != nil {
		return err
	}
	id, err := d.settled(ctx, vm)
	if err != nil || id == nil {
		return err
	}
	return fault.New(fault.Precondition, "vm %d has volume %s and is on", holder.VMID, v.ID).
		WithResource("volume %s", v.ID).WithHolder(holder.Owner).WithHint("stop the vm, or detach the volume")
}

// keepVolume makes a snapshot. It is noted before, so that half of one is known.
func (d *Driver) keepVolume(ctx context.Context, v *volume.Volume, name string) error {
	if v.Snapshots.Whole(name) {
		return nil
	}
	one := record.Snapshot{Name: name, State: record.SnapshotCreating, Created: time.Now().UTC()}
	v.Snapshots = v.Snapshots.With(one)
	if err := d.volumes.Save(v); err != nil {
		return err
	}
	d.crash("volume-snapshot-noted")
	if err := d.resting(v, func(i disk.Image) error { return i.Keep(ctx, name) }); err != nil {
		return err
	}
	d.crash("volume-snapshot-made")
	one.State = record.SnapshotReady
	v.Snapshots = v.Snapshots.With(one)
	return d.volumes.Save(v)
}

func (d *Driver) rollBackVolume(ctx context.Context, v *volume.Volume, name string) error {
	if !v.Snapshots.Whole(name) {
		return noSnapshot(name, "volume "+v.ID)
	}
	return d.resting(v, func(i disk.Image) error { return i.Apply(ctx, name) })
}

func (d *Driver) dropVolume(ctx context.Context, v *volume.Volume, name string) error {
	one := v.Snapshots.Find(name)
	if one == nil {
		return nil
	}
	one.State = record.SnapshotDeleting
	if err := d.volumes.Save(v); err != nil {
		return err
	}
	if err := d.resting(v, func(i disk.Image) error { return i.Drop(ctx, name) }); err != nil {
		return err
	}
	v.Snapshots = v.Snapshots.Without(name)
	return d.volumes.Save(v)
}
