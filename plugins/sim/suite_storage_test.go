package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/internal/driver"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// careless breaks one promise about snapshots, volumes or programs.
type careless struct {
	*driver.Hypervisor
	world  *world.World
	defect string
}

// volumesOf lists what a machine has.
func (c careless) volumesOf(ctx context.Context, vmid uint32) (out []world.Volume) {
	_ = c.world.View(ctx, func(tx *world.Tx) error {
		all, err := tx.Volumes()
		for _, v := range all {
			if v.AttachedVMID == vmid {
				out = append(out, v)
			}
		}
		return err
	})
	return out
}

// rightful is the reference with the owner that the machine has.
func (c careless) rightful(ctx context.Context, ref hypervisor.Ref) hypervisor.Ref {
	vm, _ := c.GetVM(ctx, hypervisor.Ref{VMID: ref.VMID})
	return vm.Ref
}

func (c careless) CreateSnapshot(ctx context.Context, ref hypervisor.Ref, name string, withMemory bool) (hypervisor.Snapshot, error) {
	switch {
	case c.defect == "snapshot-names" && hypervisor.CheckSnapshotName(name) != nil:
		return hypervisor.Snapshot{Name: name}, nil
	case c.defect == "snapshot-memory":
		withMemory = false
	case c.defect == "snapshot-owner":
		ref = c.rightful(ctx, ref)
	}
	return c.Hypervisor.CreateSnapshot(ctx, ref, name, withMemory)
}

func (c careless) RollbackSnapshot(ctx context.Context, ref hypervisor.Ref, name string) (hypervisor.VM, error) {
	vm, err := c.Hypervisor.RollbackSnapshot(ctx, ref, name)
	if err == nil && c.defect == "snapshot" {
		return c.SetPower(ctx, ref, hypervisor.PowerOn, 0)
	}
	if err == nil && c.defect == "snapshot-volume" {
		for _, v := range c.volumesOf(ctx, ref.VMID) {
			_, err = c.Hypervisor.DetachVolume(ctx, ref, v.Ref)
		}
	}
	return vm, err
}

func (c careless) DeleteVolume(ctx context.Context, ref hypervisor.VolumeRef) error {
	if _, err := c.GetVolume(ctx, ref); c.defect == "volume" && err != nil {
		return err
	}
	return c.Hypervisor.DeleteVolume(ctx, ref)
}

func (c careless) AttachVolume(ctx context.Context, vm hypervisor.Ref, ref hypervisor.VolumeRef, serial string) (hypervisor.Volume, error) {
	v, err := c.GetVolume(ctx, ref)
	if err == nil && c.defect == "volume-owner" && v.AttachedVMID != 0 && v.AttachedVMID != vm.VMID {
		_, _ = c.Hypervisor.DetachVolume(ctx, c.rightful(ctx, hypervisor.Ref{VMID: v.AttachedVMID}), ref)
	}
	return c.Hypervisor.AttachVolume(ctx, vm, ref, serial)
}

func (c careless) DetachVolume(ctx context.Context, vm hypervisor.Ref, ref hypervisor.VolumeRef) (hypervisor.Volume, error) {
	if c.defect == "volume-hot" {
		_, _ = c.SetPower(ctx, vm, hypervisor.PowerOff, 0)
	}
	return c.Hypervisor.DetachVolume(ctx, vm, ref)
}

func (c careless) SetPower(ctx context.Context, ref hypervisor.Ref, target hypervisor.Power, grace time.Duration) (hypervisor.VM, error) {
	vm, err := c.Hypervisor.SetPower(ctx, ref, target, grace)
	if c.defect == "volume-attach" && target == hypervisor.PowerOff && err == nil {
		for _, v := range c.volumesOf(ctx, ref.VMID) {
			_, err = c.Hypervisor.DetachVolume(ctx, ref, v.Ref)
		}
	}
	return vm, err
}

func (c careless) DestroyVM(ctx context.Context, ref hypervisor.Ref) error {
	had := c.volumesOf(ctx, ref.VMID)
	err := c.Hypervisor.DestroyVM(ctx, ref)
	for _, v := range had {
		if c.defect == "volume-outlives" && err == nil {
			err = c.Hypervisor.DeleteVolume(ctx, v.Ref)
		}
	}
	return err
}

func (c careless) SnapshotVolume(ctx context.Context, ref hypervisor.VolumeRef, name string, action hypervisor.SnapshotAction) (hypervisor.Volume, error) {
	v, err := c.Hypervisor.SnapshotVolume(ctx, ref, name, action)
	if c.defect == "volume-snapshot" && errors.Is(err, fault.Precondition) {
		return c.GetVolume(ctx, ref)
	}
	return v, err
}

func (c careless) CloneVolume(ctx context.Context, req hypervisor.CloneRequest) (hypervisor.Volume, error) {
	v, err := c.Hypervisor.CloneVolume(ctx, req)
	if c.defect == "volume-clone" && errors.Is(err, fault.NotFound) {
		return c.Hypervisor.CreateVolume(ctx, hypervisor.VolumeRequest{Owner: req.Owner, SizeBytes: 1 << 20})
	}
	return v, err
}

// Exec says that all went well.
func (c careless) Exec(context.Context, hypervisor.Ref, hypervisor.Command, hypervisor.Streams) (int, error) {
	return 0, nil
}

func TestSuiteNoticesCarelessStorage(t *testing.T) {
	for _, defect := range []string{
		"snapshot", "snapshot-memory", "snapshot-names", "snapshot-owner", "snapshot-volume",
		"volume", "volume-owner", "volume-attach", "volume-hot", "volume-outlives", "volume-snapshot", "volume-clone",
		"exec-refused", "exec", "guest-disks",
	} {
		t.Run(defect, func(t *testing.T) {
			w := openWorld(t)
			d := careless{driver.NewHypervisor(w, nil), w, defect}
			opts := conformance.HypervisorOptions{Guest: true}
			broken(t, conformance.Hypervisor(conformance.Local[hypervisor.Driver](d), opts), "hypervisor."+defect)
		})
	}
}
