package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// pool is the one there is.
const pool = "world"

var (
	_ hypervisor.VolumeKeeper      = (*Hypervisor)(nil)
	_ hypervisor.VolumeSnapshotter = (*Hypervisor)(nil)
	_ hypervisor.VolumeCloner      = (*Hypervisor)(nil)
)

// CreateVolume makes a volume in one effect, volume.create.
func (h *Hypervisor) CreateVolume(ctx context.Context, req hypervisor.VolumeRequest) (hypervisor.Volume, error) {
	return h.CloneVolume(ctx, hypervisor.CloneRequest{VolumeRequest: req})
}

// CloneVolume makes one of another's size, as volume.create does. Simulated disks
// have no content.
func (h *Hypervisor) CloneVolume(ctx context.Context, req hypervisor.CloneRequest) (hypervisor.Volume, error) {
	switch {
	case req.Owner == "":
		return hypervisor.Volume{}, fault.New(fault.Invalid, "a volume needs an owner mark")
	case req.SizeBytes == 0 && req.FromVolume == "":
		return hypervisor.Volume{}, fault.New(fault.Invalid, "a volume needs a size")
	case req.Pool != "" && req.Pool != pool:
		return hypervisor.Volume{}, fault.New(fault.Invalid, "there is no pool %q", req.Pool)
	}
	sum := sha256.Sum256([]byte(req.Owner))
	id := hex.EncodeToString(sum[:8])
	return h.volume(ctx, "volume.create", id, func(tx *world.Tx) (v world.Volume, err error) {
		v, found, err := tx.Volume(id)
		if err != nil || found {
			return v, err
		}
		v.Volume = hypervisor.Volume{Ref: hypervisor.VolumeRef{ID: id, Owner: req.Owner}, SizeBytes: req.SizeBytes, Pool: pool}
		if req.FromVolume != "" {
			source, err := findVolume(tx, req.FromVolume)
			if err == nil {
				err = atRest(tx, source)
			}
			if err == nil && req.FromSnapshot != "" && !slices.Contains(source.Snapshots, req.FromSnapshot) {
				err = noSnapshot(req.FromSnapshot)
			}
			if err == nil && req.SizeBytes != 0 && req.SizeBytes < source.SizeBytes {
				err = fault.New(fault.Invalid, "a copy of %d bytes cannot have %d", source.SizeBytes, req.SizeBytes)
			}
			if err != nil {
				return v, err
			}
			v.SizeBytes = max(req.SizeBytes, source.SizeBytes)
		}
		return v, putVolume(tx, "volume.create", v)
	})
}

// GetVolume finds one volume.
func (h *Hypervisor) GetVolume(ctx context.Context, ref hypervisor.VolumeRef) (hypervisor.Volume, error) {
	return h.volume(ctx, "volume.get", ref.ID, func(tx *world.Tx) (world.Volume, error) {
		v, err := findVolume(tx, ref.ID)
		if err == nil && ref.Owner != "" && ref.Owner != v.Ref.Owner {
			err = foreignVolume(v)
		}
		return v, err
	})
}

// AttachVolume gives a machine the volume in one effect, volume.attach.
func (h *Hypervisor) AttachVolume(ctx context.Context, vm hypervisor.Ref, ref hypervisor.VolumeRef, serial string) (hypervisor.Volume, error) {
	if err := hypervisor.CheckSerial(serial); err != nil {
		return hypervisor.Volume{}, err
	}
	return h.volume(ctx, "volume.attach", ref.ID, func(tx *world.Tx) (world.Volume, error) {
		v, err := ownedVolume(tx, ref)
		if err != nil {
			return v, err
		}
		if _, err := owned(tx, vm); err != nil {
			return v, err
		}
		if v.AttachedVMID != 0 && (v.AttachedVMID != vm.VMID || v.Serial != serial) {
			return v, held(v)
		}
		if v.AttachedVMID != 0 {
			return v, nil
		}
		all, err := tx.Volumes()
		if err != nil {
			return v, err
		}
		for _, o := range all {
			if o.AttachedVMID == vm.VMID && o.Serial == serial {
				return v, fault.New(fault.Exists, "another disk of vm %d has the serial %q", vm.VMID, serial)
			}
		}
		v.AttachedVMID, v.Serial = vm.VMID, serial
		return v, putVolume(tx, "volume.attach", v)
	})
}

// DetachVolume takes it back in one effect, volume.detach. Guests use no volume
// but one that a test has marked.
func (h *Hypervisor) DetachVolume(ctx context.Context, vm hypervisor.Ref, ref hypervisor.VolumeRef) (hypervisor.Volume, error) {
	return h.volume(ctx, "volume.detach", ref.ID, func(tx *world.Tx) (world.Volume, error) {
		v, err := ownedVolume(tx, ref)
		if err != nil || v.AttachedVMID == 0 {
			return v, err
		}
		if v.AttachedVMID != vm.VMID {
			return v, held(v)
		}
		machine, err := owned(tx, vm)
		if err != nil {
			return v, err
		}
		if machine.Power == hypervisor.PowerPaused || v.Busy && machine.Power != hypervisor.PowerOff {
			return v, fault.New(fault.Precondition, "the guest of vm %d uses the volume", vm.VMID).WithHint("unmount it in the guest, or stop the vm")
		}
		v.AttachedVMID, v.Serial = 0, ""
		return v, putVolume(tx, "volume.detach", v)
	})
}

// DeleteVolume ends it in one effect, volume.delete.
func (h *Hypervisor) DeleteVolume(ctx context.Context, ref hypervisor.VolumeRef) error {
	_, err := h.volume(ctx, "volume.delete", ref.ID, func(tx *world.Tx) (world.Volume, error) {
		v, err := ownedVolume(tx, ref)
		if errors.Is(err, fault.NotFound) {
			return v, nil
		}
		if err == nil && v.AttachedVMID != 0 {
			err = held(v)
		}
		if err != nil {
			return v, err
		}
		tx.Record(world.Effect{Op: "volume.delete", Subject: v.Ref.ID, Owner: v.Ref.Owner})
		tx.DeleteVolume(v.Ref.ID)
		return v, nil
	})
	return err
}

// SnapshotVolume changes the volume's snapshots in one effect, volume.snapshot.
func (h *Hypervisor) SnapshotVolume(
	ctx context.Context, ref hypervisor.VolumeRef, name string, action hypervisor.SnapshotAction,
) (hypervisor.Volume, error) {
	if err := hypervisor.CheckSnapshotName(name); err != nil {
		return hypervisor.Volume{}, err
	}
	return h.volume(ctx, "volume.snapshot", ref.ID, func(tx *world.Tx) (world.Volume, error) {
		v, err := ownedVolume(tx, ref)
		if err == nil {
			err = atRest(tx, v)
		}
		there := slices.Contains(v.Snapshots, name)
		switch {
		case err != nil:
			return v, err
		case action == hypervisor.SnapshotRollback && !there:
			return v, noSnapshot(name)
		case action == hypervisor.SnapshotCreate && !there:
			v.Snapshots = append(v.Snapshots, name)
		case action == hypervisor.SnapshotDelete && there:
			v.Snapshots = slices.DeleteFunc(v.Snapshots, func(s string) bool { return s == name })
		case action != hypervisor.SnapshotRollback:
			return v, nil
		}
		return v, putVolume(tx, "volume.snapshot", v)
	})
}

// volume runs a change on one volume and gives what became of it.
func (h *Hypervisor) volume(
	ctx context.Context, op, id string, fn func(*world.Tx) (world.Volume, error),
) (hypervisor.Volume, error) {
	if err := h.world.Reach(ctx, op, id); err != nil {
		return hypervisor.Volume{}, err
	}
	var v world.Volume
	err := h.world.Change(ctx, func(tx *world.Tx) (err error) {
		v, err = fn(tx)
		return err
	})
	if err != nil {
		return hypervisor.Volume{}, err
	}
	return v.Volume, nil
}

func putVolume(tx *world.Tx, op string, v world.Volume) error {
	tx.Record(world.Effect{Op: op, Subject: v.Ref.ID, Owner: v.Ref.Owner})
	return tx.PutVolume(v)
}

func findVolume(tx *world.Tx, id string) (world.Volume, error) {
	v, found, err := tx.Volume(id)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "volume %s does not exist", id).WithResource("volume %s", id)
	}
	return v, err
}

func ownedVolume(tx *world.Tx, ref hypervisor.VolumeRef) (world.Volume, error) {
	v, err := findVolume(tx, ref.ID)
	if err == nil && ref.Owner != v.Ref.Owner {
		err = foreignVolume(v)
	}
	return v, err
}

func foreignVolume(v world.Volume) error {
	return fault.New(fault.Precondition, "volume %s belongs to somebody else", v.Ref.ID).WithHolder(v.Ref.Owner)
}

func held(v world.Volume) error {
	return fault.New(fault.Precondition, "vm %d has volume %s as %q", v.AttachedVMID, v.Ref.ID, v.Serial).WithHint("detach it first")
}

func noSnapshot(name string) error {
	return fault.New(fault.NotFound, "there is no snapshot %q", name).WithResource("snapshot %s", name)
}

// atRest wants the machine that has the volume to be off.
func atRest(tx *world.Tx, v world.Volume) error {
	vm, found, err := tx.VM(v.AttachedVMID)
	if err == nil && found && vm.Power != hypervisor.PowerOff {
		err = fault.New(fault.Precondition, "vm %d has volume %s and is %s", vm.VMID, v.Ref.ID, vm.Power).WithHint("stop it first")
	}
	return err
}

// freeVolumes takes back what a machine has that goes.
func freeVolumes(tx *world.Tx, vmid uint32) error {
	all, err := tx.Volumes()
	for _, v := range all {
		if v.AttachedVMID == vmid && err == nil {
			v.AttachedVMID, v.Serial, v.Busy = 0, "", false
			err = tx.PutVolume(v)
		}
	}
	return err
}
