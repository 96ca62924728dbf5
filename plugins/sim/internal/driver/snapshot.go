package driver

import (
	"context"
	"slices"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var _ hypervisor.Snapshotter = (*Hypervisor)(nil)

// CreateSnapshot notes one in one effect, vm.snapshot. A simulated disk has
// nothing to keep.
func (h *Hypervisor) CreateSnapshot(ctx context.Context, ref hypervisor.Ref, name string, withMemory bool) (hypervisor.Snapshot, error) {
	if err := hypervisor.CheckSnapshotName(name); err != nil {
		return hypervisor.Snapshot{}, err
	}
	vm, err := h.snapshots(ctx, "vm.snapshot", ref, func(tx *world.Tx, vm *world.VM) (bool, error) {
		if findSnapshot(*vm, name) != nil {
			return false, nil
		}
		if withMemory && vm.Power == hypervisor.PowerOff {
			return false, fault.New(fault.Precondition, "vm %d is off and has no memory", vm.VMID)
		}
		if err := memoryFits(tx, vm.VMID, withMemory); err != nil {
			return false, err
		}
		vm.Snapshots = append(vm.Snapshots, hypervisor.Snapshot{Name: name, Created: time.Now().UTC(), WithMemory: withMemory})
		return true, nil
	})
	if err != nil {
		return hypervisor.Snapshot{}, err
	}
	return *findSnapshot(vm, name), nil
}

// RollbackSnapshot turns the machine off, or on where there is memory, in one
// effect, vm.rollback. Its guest starts anew from what it has on its disk.
func (h *Hypervisor) RollbackSnapshot(ctx context.Context, ref hypervisor.Ref, name string) (hypervisor.VM, error) {
	if err := hypervisor.CheckSnapshotName(name); err != nil {
		return hypervisor.VM{}, err
	}
	vm, err := h.snapshots(ctx, "vm.rollback", ref, func(tx *world.Tx, vm *world.VM) (bool, error) {
		one := findSnapshot(*vm, name)
		if one == nil {
			return false, noSnapshot(name)
		}
		if err := memoryFits(tx, vm.VMID, one.WithMemory); err != nil {
			return false, err
		}
		vm.Power, vm.Started, vm.Start = hypervisor.PowerOff, time.Time{}, hypervisor.Start{}
		if one.WithMemory {
			vm.Power, vm.Started = hypervisor.PowerOn, time.Now().UTC()
			vm.Boot++
		}
		return true, nil
	})
	h.wakeUp()
	if err != nil {
		return hypervisor.VM{}, err
	}
	return present(vm), nil
}

// DeleteSnapshot forgets one in one effect, vm.forget.
func (h *Hypervisor) DeleteSnapshot(ctx context.Context, ref hypervisor.Ref, name string) ([]hypervisor.Snapshot, error) {
	if err := hypervisor.CheckSnapshotName(name); err != nil {
		return nil, err
	}
	vm, err := h.snapshots(ctx, "vm.forget", ref, func(_ *world.Tx, vm *world.VM) (bool, error) {
		before := len(vm.Snapshots)
		vm.Snapshots = slices.DeleteFunc(vm.Snapshots, func(s hypervisor.Snapshot) bool { return s.Name == name })
		return len(vm.Snapshots) < before, nil
	})
	return vm.Snapshots, err
}

// ListSnapshots gives what there is.
func (h *Hypervisor) ListSnapshots(ctx context.Context, ref hypervisor.Ref) (out []hypervisor.Snapshot, err error) {
	if err := h.world.Reach(ctx, "vm.snapshots", subject(ref.VMID)); err != nil {
		return nil, err
	}
	err = h.world.View(ctx, func(tx *world.Tx) error {
		vm, err := find(tx, ref.VMID)
		if err == nil && ref.Owner != "" && ref.Owner != vm.Owner {
			err = fault.New(fault.Precondition, "vm %d belongs to somebody else", ref.VMID).WithHolder(vm.Owner)
		}
		out = vm.Snapshots
		return err
	})
	return out, err
}

// snapshots changes a machine's snapshots, or what depends on them.
func (h *Hypervisor) snapshots(
	ctx context.Context, op string, ref hypervisor.Ref, fn func(*world.Tx, *world.VM) (changed bool, err error),
) (vm world.VM, err error) {
	if err := h.world.Reach(ctx, op, subject(ref.VMID)); err != nil {
		return vm, err
	}
	err = h.world.Change(ctx, func(tx *world.Tx) (err error) {
		if vm, err = owned(tx, ref); err != nil {
			return err
		}
		if vm.Half {
			return fault.New(fault.Precondition, "vm %d was never finished", vm.VMID)
		}
		changed, err := fn(tx, &vm)
		if err != nil || !changed {
			return err
		}
		tx.Record(world.Effect{Op: op, Subject: subject(vm.VMID), Owner: vm.Owner})
		return tx.PutVM(vm)
	})
	return vm, err
}

func findSnapshot(vm world.VM, name string) *hypervisor.Snapshot {
	for i, s := range vm.Snapshots {
		if s.Name == name {
			return &vm.Snapshots[i]
		}
	}
	return nil
}

// memoryFits refuses memory that knows of a volume.
func memoryFits(tx *world.Tx, vmid uint32, withMemory bool) error {
	all, err := tx.Volumes()
	for _, v := range all {
		if v.AttachedVMID == vmid && withMemory && err == nil {
			err = held(v)
		}
	}
	return err
}
