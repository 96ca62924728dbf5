package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// SetPower drives the machine to the target in one effect, vm.power.
func (h *Hypervisor) SetPower(ctx context.Context, ref hypervisor.Ref, target hypervisor.Power, grace time.Duration) (hypervisor.VM, error) {
	if err := h.world.Reach(ctx, "vm.power", subject(ref.VMID)); err != nil {
		return hypervisor.VM{}, err
	}
	if target == hypervisor.PowerShutdown {
		if err := h.awaitGuest(ctx, ref, grace); err != nil {
			return hypervisor.VM{}, err
		}
	}
	var vm world.VM
	err := h.world.Change(ctx, func(tx *world.Tx) (err error) {
		if vm, err = owned(tx, ref); err != nil {
			return err
		}
		return turn(tx, &vm, target)
	})
	h.wakeUp()
	if err != nil {
		return hypervisor.VM{}, err
	}
	return present(vm), nil
}

// turn stages the change of power, if it is one.
func turn(tx *world.Tx, vm *world.VM, target hypervisor.Power) error {
	var err error
	e := world.Effect{Op: "vm.power", Subject: subject(vm.VMID), Owner: vm.Owner, Detail: string(target)}
	switch target {
	case hypervisor.PowerOff, hypervisor.PowerShutdown:
		if vm.Power == hypervisor.PowerOff {
			return nil
		}
		vm.Power, vm.Started, vm.Start = hypervisor.PowerOff, time.Time{}, hypervisor.Start{}
	case hypervisor.PowerPaused:
		if vm.Power == hypervisor.PowerPaused {
			return nil
		}
		if vm.Power != hypervisor.PowerOn {
			return fault.New(fault.Precondition, "vm %d is %s and cannot be paused", vm.VMID, vm.Power)
		}
		vm.Power = hypervisor.PowerPaused
	case hypervisor.PowerOn:
		if vm.Power == hypervisor.PowerOn {
			return nil
		}
		if vm.Half {
			return fault.New(fault.Precondition, "vm %d was never finished", vm.VMID)
		}
		if vm.Power == hypervisor.PowerOff {
			if vm.Start, err = begin(tx, *vm); err != nil {
				return err
			}
			vm.Boot++
			vm.Started = time.Now().UTC()
		}
		vm.Power = hypervisor.PowerOn
		if e.Broken, err = uncovered(tx, *vm); err != nil {
			return err
		}
	default:
		return fault.New(fault.Unsupported, "a simulated machine cannot be %s", target)
	}
	tx.Record(e)
	return tx.PutVM(*vm)
}

// uncovered says what is wrong with powering the machine on: its policy must be
// in force before.
func uncovered(tx *world.Tx, vm world.VM) (string, error) {
	all, err := tx.Attachments()
	if err != nil {
		return "", err
	}
	for _, a := range all {
		if a.Interface == present(vm).HostInterface && a.MAC == vm.NIC.MAC {
			return "", nil
		}
	}
	return fmt.Sprintf("no policy is in force for %s", present(vm).HostInterface), nil
}

// awaitGuest gives a deaf guest its grace; every other one obeys at once.
func (h *Hypervisor) awaitGuest(ctx context.Context, ref hypervisor.Ref, grace time.Duration) error {
	var deaf bool
	err := h.world.View(ctx, func(tx *world.Tx) error {
		vm, err := owned(tx, ref)
		deaf = vm.Deaf && vm.Power == hypervisor.PowerOn
		return err
	})
	if err != nil || !deaf {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the guest of vm %d: %w", ref.VMID, ctx.Err())
	}
}
