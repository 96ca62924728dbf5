package driver

import (
	"context"
	"slices"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// memoryBytes is what a simulated memory template takes on the host.
const memoryBytes = 200 << 20

// WarmTemplate notes, in one effect, template.warm, that machines of this size
// start from memory.
func (h *Hypervisor) WarmTemplate(
	ctx context.Context, req hypervisor.WarmRequest, progress func(hypervisor.Progress),
) (hypervisor.Template, error) {
	if err := h.world.Reach(ctx, "template.warm", ""); err != nil {
		return hypervisor.Template{}, err
	}
	if err := checkTemplate(req.Template); err != nil {
		return hypervisor.Template{}, err
	}
	if req.Cores == 0 || req.MemoryBytes == 0 {
		return hypervisor.Template{}, fault.New(fault.Invalid, "a machine needs cores and memory")
	}
	if progress != nil {
		progress(hypervisor.Progress{Phase: "boot", Fraction: -1})
	}
	out := world.Template
	err := h.world.Change(ctx, func(tx *world.Tx) error {
		all, err := tx.Memory()
		if err != nil {
			return err
		}
		out.Memory = all
		if sizeOf(all, req.Cores, req.MemoryBytes, req.RootDiskBytes) {
			return nil
		}
		out.Memory = append(all, hypervisor.MemoryTemplate{
			Cores: req.Cores, MemoryBytes: req.MemoryBytes, RootDiskBytes: req.RootDiskBytes,
			Created: time.Now().UTC(), DiskBytes: memoryBytes,
		})
		tx.Record(world.Effect{Op: "template.warm", Subject: req.Template})
		return tx.PutMemory(out.Memory)
	})
	return out, err
}

func sizeOf(all []hypervisor.MemoryTemplate, cores uint32, memory, disk uint64) bool {
	return slices.ContainsFunc(all, func(m hypervisor.MemoryTemplate) bool {
		return m.Cores == cores && m.MemoryBytes == memory && m.RootDiskBytes == disk
	})
}

// begin says how a machine comes up. One that has run boots from its disk.
func begin(tx *world.Tx, vm world.VM) (hypervisor.Start, error) {
	if vm.Boot > 0 {
		return hypervisor.Start{Way: hypervisor.WayBoot, Reason: "it has run before"}, nil
	}
	all, err := tx.Memory()
	if err != nil || sizeOf(all, vm.Cores, vm.MemoryBytes, vm.RootDiskBytes) {
		return hypervisor.Start{Way: hypervisor.WayMemory}, err
	}
	return hypervisor.Start{Way: hypervisor.WayBoot, Reason: "there is no memory template of its size; agentlab template warm makes one for those to come"}, nil
}
