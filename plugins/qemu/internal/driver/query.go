package driver

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// listWidth is how many QEMUs are asked at once for a list.
const listWidth = 8

// GetVM implements hypervisor.Driver. A VM whose record cannot be read has no
// owner in the answer.
func (d *Driver) GetVM(ctx context.Context, ref hypervisor.Ref) (hypervisor.VM, error) {
	v, err := d.store.Load(ref.VMID)
	return d.viewLoaded(ctx, ref.VMID, v, err)
}

func (d *Driver) viewLoaded(ctx context.Context, vmid uint32, v *record.VM, err error) (hypervisor.VM, error) {
	if errors.Is(err, record.ErrUnreadable) {
		plugin.Log(ctx, d.log).Warn("record cannot be read", "vmid", vmid, "err", err)
		return d.unreadable(vmid)
	}
	if err != nil {
		return hypervisor.VM{}, err
	}
	return d.view(ctx, v)
}

// ListVMs implements hypervisor.Driver. A VM that goes while the list is made
// is left out. Others' VMs are not asked, and a monitor that does not answer
// holds up the rest but once.
func (d *Driver) ListVMs(ctx context.Context, ownerPrefix string, foreign bool) ([]hypervisor.VM, error) {
	vmids, err := d.store.List()
	if err != nil {
		return nil, err
	}
	views := make([]*hypervisor.VM, len(vmids))
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(listWidth)
	for i, vmid := range vmids {
		v, err := d.store.Load(vmid)
		ours := err == nil && strings.HasPrefix(v.Owner, ownerPrefix)
		if !ours && !foreign && (err == nil || errors.Is(err, record.ErrUnreadable)) {
			continue
		}
		group.Go(func() error {
			vm, err := d.viewLoaded(asking, vmid, v, err)
			if errors.Is(err, fault.NotFound) {
				return nil
			}
			views[i] = &vm
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var out []hypervisor.VM
	for _, vm := range views {
		if vm != nil {
			out = append(out, *vm)
		}
	}
	return out, ctx.Err()
}

// unreadable tells what can be told without a record: whether anything runs as
// a user of the VM's.
func (d *Driver) unreadable(vmid uint32) (hypervisor.VM, error) {
	vm := hypervisor.VM{Ref: hypervisor.Ref{VMID: vmid}, Power: hypervisor.PowerOff}
	users, err := d.store.Users(vmid)
	if err != nil {
		return vm, err
	}
	for _, uid := range append(users, d.uid(vmid)) {
		if uid == 0 { // whose the record is
			continue
		}
		found, err := d.programs(uid)
		if err != nil {
			return vm, err
		}
		if len(found) > 0 {
			vm.Power = hypervisor.PowerOn
		}
	}
	return vm, nil
}

// view is the VM as it is now.
func (d *Driver) view(ctx context.Context, v *record.VM) (hypervisor.VM, error) {
	vm := hypervisor.VM{
		Ref: hypervisor.Ref{VMID: v.VMID, Owner: v.Owner}, Name: v.Name, Power: hypervisor.PowerOff,
		Cores: v.Cores, MemoryBytes: v.MemoryBytes, HostInterface: v.NIC.Tap,
		NIC: hypervisor.NIC{
			Bridge: v.NIC.Bridge, MAC: v.NIC.MAC, Tap: v.NIC.Tap,
			AddressCIDR: v.NIC.AddressCIDR, Gateway: v.NIC.Gateway, DNS: v.NIC.DNS,
		},
	}
	if v.State == record.StateCreating {
		vm.Lock = "create"
		return vm, nil
	}
	id, err := d.program(v)
	if err != nil || id == nil || !v.Run.Complete() {
		// It is for the next start to bring it to its end, or to begin anew.
		return vm, err
	}
	vm.Power, vm.Started = hypervisor.PowerOn, v.Run.Started
	vm.Start = hypervisor.Start{Way: hypervisor.Way(v.Run.Way), Reason: v.Run.Reason}
	status, err := d.status(ctx, v.VMID)
	if err != nil {
		return d.silent(ctx, v, vm, err)
	}
	vm.Power = powerOf(status)
	return vm, nil
}

// silent settles a VM whose monitor gave no answer: it may just have ended, and
// a QEMU that is there but stuck is on.
func (d *Driver) silent(ctx context.Context, v *record.VM, vm hypervisor.VM, cause error) (hypervisor.VM, error) {
	if ctx.Err() != nil {
		return vm, cause
	}
	id, err := d.program(v)
	if err != nil {
		return vm, err
	}
	if id != nil {
		// A QEMU that hangs up on its way out needs a moment to be gone.
		if _, err := ended(ctx, *id, d.monitorWait/4); err != nil {
			return vm, err
		}
		if id, err = d.program(v); err != nil {
			return vm, err
		}
	}
	if id == nil {
		vm.Power, vm.Started, vm.Start = hypervisor.PowerOff, time.Time{}, hypervisor.Start{}
		return vm, nil
	}
	plugin.Log(ctx, d.log).Warn("monitor does not answer", "vmid", vm.Ref.VMID, "err", cause)
	return vm, nil
}

// powerOf reads QEMU's run states. One that has not begun, or stopped on a full
// disk, is paused: the same call sets it going.
func powerOf(status string) hypervisor.Power {
	switch status {
	case "running":
		return hypervisor.PowerOn
	case "shutdown":
		return hypervisor.PowerOff
	}
	return hypervisor.PowerPaused
}
