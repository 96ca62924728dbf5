package driver

import (
	"context"
	"errors"
	"slices"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// DestroyVM implements hypervisor.Driver.
func (d *Driver) DestroyVM(ctx context.Context, ref hypervisor.Ref) error {
	unlock, err := d.store.Lock(ctx, ref.VMID)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.owned(ref)
	if errors.Is(err, fault.NotFound) {
		if ref.Owner == "" {
			return nil
		}
		// Its folder may have been removed by hand while it ran. The mark
		// follows from owner and VMID, so this hits no other program.
		err := d.kill(ctx, tenant{vmid: ref.VMID, uid: d.uid(ref.VMID), mark: record.Mark(ref.VMID, ref.Owner)})
		if err == nil {
			err = d.endFormer(ctx, ref)
		}
		if err != nil {
			return err
		}
		return d.releaseAll(ctx, ref.VMID, ref.Owner)
	}
	if err != nil {
		return err
	}
	if err := d.kill(ctx, d.tenant(v)); err != nil {
		return err
	}
	d.crash("killed")
	d.forget(ref.VMID)
	if err := d.releaseAll(ctx, v.VMID, v.Owner); err != nil {
		return err
	}
	d.crash("volumes-freed")
	// Without the folder, its user may be another's.
	if err := d.store.ForgetFormer(ref.VMID); err != nil {
		return err
	}
	d.crash("unnoted")
	if err := d.store.Remove(ref.VMID); err != nil {
		return err
	}
	if v.Memory != nil {
		d.collect(ctx) // it may have been the last that needed its memory template
	}
	return nil
}

// endFormer does the same for a VM that was a spare. It has no record.
func (d *Driver) endFormer(ctx context.Context, ref hypervisor.Ref) error {
	n, err := d.store.Former(ref.VMID)
	if n == nil || err != nil || n.Owner != ref.Owner {
		return err
	}
	if n.BootID == d.bootID {
		used, err := d.usedUsers()
		if err != nil {
			return err
		}
		t := tenantOf(*n)
		t.alone, t.shares = false, slices.Contains(used, n.UID)
		if err := d.kill(ctx, t); err != nil {
			return err
		}
	}
	return d.store.ForgetFormer(ref.VMID)
}
