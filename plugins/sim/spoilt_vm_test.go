package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// deceptive breaks promises about VMs that are on, and about halves of them.
type deceptive struct {
	*spoiltHypervisor
	mu    sync.Mutex
	asked map[uint32]hypervisor.CreateRequest // what was half done, and is said to be whole
}

func (d *deceptive) CreateVM(ctx context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress)) (hypervisor.VM, error) {
	old, err := d.Hypervisor.GetVM(ctx, req.Ref)
	there := err == nil
	mine := there && old.Ref.Owner == req.Ref.Owner
	switch d.defect {
	case "makeshift", "pretending":
		if mine && old.Lock != "" {
			d.mu.Lock()
			d.asked[req.Ref.VMID] = req
			d.mu.Unlock()
			return d.GetVM(ctx, req.Ref)
		}
		return d.spoiltHypervisor.CreateVM(ctx, req, func(p hypervisor.Progress) {
			if progress != nil {
				progress(p)
			}
			time.Sleep(50 * time.Millisecond)
		})
	case "ruthless":
		if there && !mine && old.Power == hypervisor.PowerOn {
			if _, err := d.Hypervisor.SetPower(ctx, old.Ref, hypervisor.PowerOff, 0); err != nil {
				return hypervisor.VM{}, err
			}
		}
	case "murderous": // and GetVM does not look
		if there && !mine {
			if err := d.program.end(req.Ref.VMID); err != nil {
				return hypervisor.VM{}, err
			}
		}
	}
	return d.spoiltHypervisor.CreateVM(ctx, req, progress)
}

func (d *deceptive) GetVM(ctx context.Context, ref hypervisor.Ref) (hypervisor.VM, error) {
	vm, err := d.spoiltHypervisor.GetVM(ctx, ref)
	d.mu.Lock()
	defer d.mu.Unlock()
	if req, ok := d.asked[ref.VMID]; ok && err == nil {
		vm.Name, vm.Cores, vm.MemoryBytes, vm.NIC = req.Name, req.Cores, req.MemoryBytes, req.NIC
		if d.defect == "pretending" {
			vm.Lock = ""
		}
	}
	return vm, err
}

func (d *deceptive) SetPower(ctx context.Context, ref hypervisor.Ref, target hypervisor.Power, grace time.Duration) (hypervisor.VM, error) {
	vm, err := d.spoiltHypervisor.SetPower(ctx, ref, target, grace)
	if err == nil && target == hypervisor.PowerOn {
		err = d.keep()
	}
	return vm, err
}

// keep keeps for good what one power-on needed.
func (d *deceptive) keep() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.defect {
	case "ajar":
		f, err := os.Open(os.DevNull)
		d.open = append(d.open, f)
		return err
	case "bereft": // of one child after the other, and never asks
		return exec.Command("true").Start()
	case "engrossed":
		kept := make([]byte, 1<<20)
		for i := range kept {
			kept[i] = 1
		}
		d.hoard = append(d.hoard, kept)
	case "watching":
		go func() {
			runtime.LockOSThread()
			select {}
		}()
	}
	return nil
}

func (d *deceptive) DestroyVM(ctx context.Context, ref hypervisor.Ref) error {
	err := d.spoiltHypervisor.DestroyVM(ctx, ref)
	if fault.ClassOf(err) == "" {
		d.mu.Lock()
		delete(d.asked, ref.VMID)
		d.mu.Unlock()
	}
	return err
}
