package driver

import (
	"context"
	"errors"
	"strings"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/volume"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// settled gives the VM's running program, nil when the VM is off. A start that
// was cut short is undone, or brought to its end where it cannot be. Caller holds the VM's lock.
func (d *Driver) settled(ctx context.Context, v *record.VM) (*procfs.Identity, error) {
	id, err := d.program(v)
	switch {
	case err != nil || id == nil || v.Run.State == record.RunRunning:
		return id, err
	case v.Run.State == record.RunNaming:
		// Its guest may be at work already.
		if err := d.goOn(ctx, v); err != nil {
			return nil, err
		}
		return d.program(v)
	}
	return nil, d.powerOff(ctx, v, 0)
}

// lockOwned gives a whole VM of the owner, locked.
func (d *Driver) lockOwned(ctx context.Context, ref hypervisor.Ref) (v *record.VM, unlock func(), err error) {
	unlock, err = d.store.Lock(ctx, ref.VMID)
	if err != nil {
		return nil, nil, err
	}
	v, err = d.owned(ref)
	if err == nil && v.State != record.StateReady {
		err = halfMade(ref.VMID)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return v, unlock, nil
}

// AttachVolume implements hypervisor.VolumeKeeper. What it says is noted before
// the guest sees the disk, so a start after a crash has it, and a repeat plugs in
// what is not there yet.
func (d *Driver) AttachVolume(
	ctx context.Context, vm hypervisor.Ref, ref hypervisor.VolumeRef, serial string,
) (hypervisor.Volume, error) {
	var none hypervisor.Volume
	if err := hypervisor.CheckSerial(serial); err != nil {
		return none, err
	}
	v, unlock, err := d.lockOwned(ctx, vm)
	if err != nil {
		return none, err
	}
	defer unlock()
	unlockVolume, err := d.volumes.Lock(ctx, ref.ID)
	if err != nil {
		return none, err
	}
	defer unlockVolume()
	vol, err := d.ownedVolume(ref)
	if err == nil {
		err = d.mayAttach(v, vol, serial)
	}
	if err != nil {
		return none, err
	}
	had := vol.To(v.VMID, v.Owner)
	if err := d.attach(ctx, v, vol, serial); err != nil {
		if !had {
			err = errors.Join(err, d.undoAttach(ctx, v, vol))
		}
		return none, err
	}
	return d.volumeView(vol)
}

func (d *Driver) mayAttach(v *record.VM, vol *volume.Volume, serial string) error {
	if err := errors.Join(wholeVolume(vol), d.sound(vol)); err != nil {
		return err
	}
	holder, err := d.holder(vol)
	switch {
	case err != nil:
		return err
	case holder != nil && !vol.To(v.VMID, v.Owner):
		return heldBy(vol, holder)
	case holder != nil && holder.Serial != serial:
		return fault.New(fault.Precondition, "volume %s is attached as %q already", vol.ID, holder.Serial).
			WithResource("volume %s", vol.ID).WithHint("detach it first")
	}
	others, err := d.volumes.Of(v.VMID, v.Owner)
	if err != nil {
		return err
	}
	used := serial == machine.RootSerial || serial == machine.SeedSerial
	for _, o := range others {
		used = used || o.ID != vol.ID && o.Attached.Serial == serial
	}
	if used {
		return fault.New(fault.Exists, "another disk of vm %d has the serial %q", v.VMID, serial).WithResource("vm %d", v.VMID)
	}
	return nil
}

func (d *Driver) attach(ctx context.Context, v *record.VM, vol *volume.Volume, serial string) error {
	id, err := d.settled(ctx, v)
	if err != nil {
		return err
	}
	vol.Attached = &volume.Attachment{VMID: v.VMID, Owner: v.Owner, Serial: serial}
	if err := d.volumes.Save(vol); err != nil {
		return err
	}
	d.crash("attach-noted")
	if id == nil {
		return nil // its next start does the rest
	}
	return d.plugIn(ctx, v, vol)
}

// undoAttach takes back an attach that failed. What cannot be unplugged stays
// attached.
func (d *Driver) undoAttach(ctx context.Context, v *record.VM, vol *volume.Volume) error {
	if !vol.To(v.VMID, v.Owner) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	id, err := d.settled(ctx, v)
	if err == nil && id != nil {
		err = d.unplug(ctx, v.VMID, plug(d.volumes, vol))
	}
	if err != nil {
		return err
	}
	return d.release(vol)
}

// DetachVolume implements hypervisor.VolumeKeeper.
func (d *Driver) DetachVolume(ctx context.Context, vm hypervisor.Ref, ref hypervisor.VolumeRef) (hypervisor.Volume, error) {
	var none hypervisor.Volume
	unlock, err := d.store.Lock(ctx, vm.VMID)
	if err != nil {
		return none, err
	}
	defer unlock()
	unlockVolume, err := d.volumes.Lock(ctx, ref.ID)
	if err != nil {
		return none, err
	}
	defer unlockVolume()
	vol, err := d.ownedVolume(ref)
	if err != nil {
		return none, err
	}
	holder, err := d.holder(vol)
	if err != nil {
		return none, err
	}
	if holder != nil {
		v, err := d.owned(vm)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return none, err
		}
		if err != nil || !vol.To(v.VMID, v.Owner) {
			return none, heldBy(vol, holder)
		}
		if err := d.takeOut(ctx, v, vol); err != nil {
			return none, err
		}
	}
	if err := d.release(vol); err != nil {
		return none, err
	}
	return d.volumeView(vol)
}

// takeOut unplugs the volume from a VM that is on, once the guest says that
// nothing in it uses the disk.
func (d *Driver) takeOut(ctx context.Context, v *record.VM, vol *volume.Volume) error {
	id, err := d.settled(ctx, v)
	if err != nil || id == nil {
		return err
	}
	plugged, err := d.plugged(ctx, v.VMID, plug(d.volumes, vol))
	if err != nil {
		return err
	}
	if plugged {
		if err := d.unused(ctx, v.VMID, *id, vol.Attached.Serial); err != nil {
			return err
		}
	}
	return d.unplug(ctx, v.VMID, plug(d.volumes, vol))
}

// unused asks the guest. One that does not answer may be using it.
func (d *Driver) unused(ctx context.Context, vmid uint32, id procfs.Identity, serial string) error {
	refuse := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Precondition, format, args...).WithResource("vm %d", vmid)
	}
	status, err := d.status(ctx, vmid)
	if err != nil {
		return err
	}
	if status != "running" {
		return refuse("vm %d is %s, so its guest cannot say whether it uses disk %s", vmid, status, serial).
			WithHint("resume the vm and unmount the disk, or stop the vm")
	}
	h, leave, err := d.channels.join(ctx, d.store.Dir(vmid), id)
	if err != nil {
		return refuse("the guest of vm %d cannot be asked whether it uses disk %s: %w", vmid, serial, err).
			WithHint("stop the vm, then detach the volume")
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, d.guestWait)
	defer cancel()
	users, err := h.Busy(ctx, serial)
	switch {
	case err != nil:
		return refuse("the guest of vm %d does not say whether it uses disk %s: %w", vmid, serial, err).
			WithHint("stop the vm, then detach the volume")
	case len(users) > 0:
		return refuse("the guest of vm %d uses disk %s: %s", vmid, serial, strings.Join(users, ", ")).
			WithHolder(strings.Join(users, ", ")).WithHint("unmount it in the guest, or stop the vm")
	}
	return nil
}

// release makes the volume nobody's. It is the plugin's own before its record
// says so.
func (d *Driver) release(vol *volume.Volume) error {
	if err := disk.Give(d.volumes.Disk(vol.ID), 0); err != nil {
		return err
	}
	d.crash("volume-taken-back")
	if vol.Attached == nil {
		return nil
	}
	vol.Attached = nil
	return d.volumes.Save(vol)
}

// releaseAll frees the volumes of a VM that is off for good.
func (d *Driver) releaseAll(ctx context.Context, vmid uint32, owner string) error {
	all, err := d.volumes.Of(vmid, owner)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := d.releaseOne(ctx, v.ID, vmid, owner); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) releaseOne(ctx context.Context, id string, vmid uint32, owner string) error {
	unlock, err := d.volumes.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.volumes.Load(id)
	if errors.Is(err, fault.NotFound) || err == nil && !v.To(vmid, owner) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.release(v)
}
