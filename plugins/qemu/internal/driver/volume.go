package driver

import (
	"context"
	"errors"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/volume"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	// pool is the one there is: the state folder.
	pool = "state"
	// volumeGrain is what sizes are rounded up to.
	volumeGrain    = 1 << 20
	maxVolumeBytes = 64 << 40
)

var (
	_ hypervisor.VolumeKeeper      = (*Driver)(nil)
	_ hypervisor.VolumeCloner      = (*Driver)(nil)
	_ hypervisor.VolumeSnapshotter = (*Driver)(nil)
)

// keeper is the user before those of VMs, as whom qemu-img works on volumes. At
// rest a volume is the plugin's.
func (d *Driver) keeper() uint32 { return d.uid(d.cfg.VMIDFirst - 1) }

// CreateVolume implements hypervisor.VolumeKeeper.
func (d *Driver) CreateVolume(ctx context.Context, req hypervisor.VolumeRequest) (hypervisor.Volume, error) {
	return d.CloneVolume(ctx, hypervisor.CloneRequest{VolumeRequest: req})
}

// CloneVolume implements hypervisor.VolumeCloner, and CreateVolume where the
// request names no source.
func (d *Driver) CloneVolume(ctx context.Context, req hypervisor.CloneRequest) (hypervisor.Volume, error) {
	var none hypervisor.Volume
	if err := checkVolume(req); err != nil {
		return none, err
	}
	id := volume.ID(req.Owner)
	// One that is whole needs no source any more.
	if v, err := d.volumes.Load(id); err == nil && v.State == volume.StateReady && v.Owner == req.Owner {
		return d.volumeView(v)
	}
	lock := func() (func(), error) { return d.volumes.Lock(ctx, id) }
	if req.FromVolume != "" {
		lock = func() (func(), error) { return d.lockAtRest(ctx, req.FromVolume, id) }
	}
	unlock, err := lock()
	if err != nil {
		return none, err
	}
	defer unlock()
	v, err := d.claimVolume(id, req.Owner)
	if err != nil {
		return none, err
	}
	if v.State == volume.StateReady {
		return d.volumeView(v)
	}
	d.crash("volume-claimed")
	if err := d.fill(ctx, v, req); err != nil {
		if gone := d.volumes.Remove(id); gone != nil {
			d.log.Warn("half-made volume was not removed", "volume", id, "err", gone)
		}
		return none, err
	}
	return d.volumeView(v)
}

func checkVolume(req hypervisor.CloneRequest) error {
	if err := validOwner(req.Owner); err != nil {
		return err
	}
	switch {
	case req.Pool != "" && req.Pool != pool:
		return fault.New(fault.Invalid, "there is no pool %q", req.Pool).WithHint("leave it out, or write %q", pool)
	case req.SizeBytes == 0 && req.FromVolume == "":
		return fault.New(fault.Invalid, "a volume needs a size")
	case req.SizeBytes > maxVolumeBytes:
		return fault.New(fault.Invalid, "a volume of %d bytes is more than 64 TiB", req.SizeBytes)
	case req.FromSnapshot != "":
		return hypervisor.CheckSnapshotName(req.FromSnapshot)
	}
	return nil
}

// claimVolume gives the owner's record, made in StateCreating if there is none.
func (d *Driver) claimVolume(id, owner string) (*volume.Volume, error) {
	v, err := d.volumes.Load(id)
	switch {
	case errors.Is(err, fault.NotFound):
		v = &volume.Volume{ID: id, Owner: owner, State: volume.StateCreating}
		return v, d.volumes.Claim(v)
	case errors.Is(err, volume.ErrUnreadable):
		return nil, unknownVolume(id, err)
	case err == nil && v.Owner != owner:
		return nil, fault.New(fault.Exists, "volume %s belongs to somebody else", id).WithHolder(v.Owner)
	}
	return v, err
}

// fill makes the disk of a claimed volume and marks it ready.
func (d *Driver) fill(ctx context.Context, v *volume.Volume, req hypervisor.CloneRequest) error {
	image := disk.Image{Path: d.volumes.Disk(v.ID), UID: d.keeper()}
	v.Bytes = (req.SizeBytes + volumeGrain - 1) / volumeGrain * volumeGrain
	var err error
	if req.FromVolume == "" {
		err = image.CreateBlank(ctx, v.Bytes)
	} else {
		err = d.copyFrom(ctx, v, image, req)
	}
	if err != nil {
		return err
	}
	d.crash("volume-made")
	if err := disk.Give(image.Path, 0); err != nil {
		return err
	}
	v.State = volume.StateReady
	return d.volumes.Save(v)
}

// copyFrom is called with both volumes locked and the source's VM, if it has one,
// known to be off.
func (d *Driver) copyFrom(ctx context.Context, v *volume.Volume, to disk.Image, req hypervisor.CloneRequest) error {
	source, err := d.readyVolume(req.FromVolume)
	if err != nil {
		return err
	}
	if req.FromSnapshot != "" && !source.Snapshots.Whole(req.FromSnapshot) {
		return noSnapshot(req.FromSnapshot, "volume "+source.ID)
	}
	if v.Bytes == 0 {
		v.Bytes = source.Bytes
	}
	if v.Bytes < source.Bytes {
		return fault.New(fault.Invalid, "volume %s has %d bytes, a copy cannot have %d", source.ID, source.Bytes, req.SizeBytes)
	}
	return d.resting(source, func(from disk.Image) error { return to.Copy(ctx, from, req.FromSnapshot, v.Bytes) })
}

// resting runs fn on the disk of a volume at rest, as the keeper.
func (d *Driver) resting(v *volume.Volume, fn func(disk.Image) error) error {
	path := d.volumes.Disk(v.ID)
	if err := d.sound(v); err != nil {
		return err
	}
	if err := disk.Give(path, d.keeper()); err != nil {
		return err
	}
	// A VM that is off gets its own again when it starts.
	return errors.Join(fn(disk.Image{Path: path, UID: d.keeper()}), disk.Give(path, 0))
}

// sound refuses a disk that a guest has made refer to another file: whoever
// opened it would open that, too.
func (d *Driver) sound(v *volume.Volume) error {
	if _, err := disk.Standalone(d.volumes.Disk(v.ID)); err != nil {
		return fault.New(fault.Precondition, "volume %s cannot be used: %w", v.ID, err).WithResource("volume %s", v.ID).
			WithHint("a VM that had it has damaged its file %s; look at it with care", d.volumes.Disk(v.ID))
	}
	return nil
}

// GetVolume implements hypervisor.VolumeKeeper.
func (d *Driver) GetVolume(_ context.Context, ref hypervisor.VolumeRef) (hypervisor.Volume, error) {
	v, err := d.volumes.Load(ref.ID)
	if err != nil {
		return hypervisor.Volume{}, err
	}
	if ref.Owner != "" && ref.Owner != v.Owner {
		return hypervisor.Volume{}, foreignVolume(v, ref.Owner)
	}
	return d.volumeView(v)
}

// DeleteVolume implements hypervisor.VolumeKeeper.
func (d *Driver) DeleteVolume(ctx context.Context, ref hypervisor.VolumeRef) error {
	unlock, err := d.volumes.Lock(ctx, ref.ID)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.ownedVolume(ref)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	holder, err := d.holder(v)
	if err != nil {
		return err
	}
	if holder != nil {
		return heldBy(v, holder)
	}
	return d.volumes.Remove(v.ID)
}

// ownedVolume loads a record for a change and compares the mark.
func (d *Driver) ownedVolume(ref hypervisor.VolumeRef) (*volume.Volume, error) {
	v, err := d.volumes.Load(ref.ID)
	if errors.Is(err, volume.ErrUnreadable) {
		return nil, unknownVolume(ref.ID, err)
	}
	if err != nil {
		return nil, err
	}
	if ref.Owner == "" || ref.Owner != v.Owner {
		return nil, foreignVolume(v, ref.Owner)
	}
	return v, nil
}

func unknownVolume(id string, err error) error {
	return fault.New(fault.Precondition, "owner of volume %s is not known: %w", id, err).
		WithHint("%s", fault.HintOf(err)).WithResource("volume %s", id)
}

func foreignVolume(v *volume.Volume, owner string) error {
	return fault.New(fault.Precondition, "volume %s belongs to %s, not to %q", v.ID, v.Owner, owner).
		WithResource("volume %s", v.ID).WithHolder(v.Owner)
}

func heldBy(v *volume.Volume, holder *volume.Attachment) error {
	return fault.New(fault.Precondition, "vm %d has volume %s", holder.VMID, v.ID).
		WithResource("volume %s", v.ID).WithHolder(holder.Owner).WithHint("detach it first")
}

func noSnapshot(name, of string) error {
	return fault.New(fault.NotFound, "%s has no snapshot %q", of, name).WithResource("snapshot %s", name)
}

// readyVolume loads a volume that is whole, whoever owns it.
func (d *Driver) readyVolume(id string) (*volume.Volume, error) {
	v, err := d.volumes.Load(id)
	if err != nil {
		return nil, err
	}
	return v, wholeVolume(v)
}

func wholeVolume(v *volume.Volume) error {
	if v.State == volume.StateReady {
		return nil
	}
	return fault.New(fault.Precondition, "volume %s is only half-made", v.ID).WithResource("volume %s", v.ID).
		WithHint("create it again, which finishes it, or delete it")
}

// holder says which VM has the volume, nil for none. One that is certainly gone,
// or another by now, has nothing.
func (d *Driver) holder(v *volume.Volume) (*volume.Attachment, error) {
	if v.Attached == nil {
		return nil, nil
	}
	vm, err := d.store.Load(v.Attached.VMID)
	switch {
	case errors.Is(err, fault.NotFound), err == nil && vm.Owner != v.Attached.Owner:
		return nil, nil
	case err != nil && !errors.Is(err, record.ErrUnreadable):
		return nil, err
	}
	return v.Attached, nil
}

func (d *Driver) volumeView(v *volume.Volume) (hypervisor.Volume, error) {
	out := hypervisor.Volume{Ref: hypervisor.VolumeRef{ID: v.ID, Owner: v.Owner}, SizeBytes: v.Bytes, Pool: pool}
	holder, err := d.holder(v)
	if err != nil {
		return out, err
	}
	if holder != nil {
		out.AttachedVMID, out.Serial = holder.VMID, holder.Serial
	}
	for _, s := range v.Snapshots {
		if s.State == record.SnapshotReady {
			out.Snapshots = append(out.Snapshots, s.Name)
		}
	}
	return out, wholeVolume(v)
}
