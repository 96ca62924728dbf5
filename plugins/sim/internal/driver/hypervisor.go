package driver

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// VMIDFirst and VMIDLast are the range given to the core.
const (
	VMIDFirst = 1000
	VMIDLast  = 60999
)

const cleanUpTimeout = 10 * time.Second

// Hypervisor is a simulated hypervisor.
type Hypervisor struct {
	world  *world.World
	wakeUp func()
}

var (
	_ hypervisor.Driver         = (*Hypervisor)(nil)
	_ hypervisor.ConsoleReader  = (*Hypervisor)(nil)
	_ hypervisor.TemplateWarmer = (*Hypervisor)(nil)
)

// NewHypervisor makes the driver. wake is called after each change of power, so
// that the guests follow it; it may be nil.
func NewHypervisor(w *world.World, wake func()) *Hypervisor {
	if wake == nil {
		wake = func() {}
	}
	return &Hypervisor{world: w, wakeUp: wake}
}

func subject(vmid uint32) string { return strconv.FormatUint(uint64(vmid), 10) }

// CheckHost reports a host without limits.
func (h *Hypervisor) CheckHost(ctx context.Context) (hypervisor.HostReport, error) {
	if err := h.world.Reach(ctx, "host.check", ""); err != nil {
		return hypervisor.HostReport{}, err
	}
	return hypervisor.HostReport{
		Findings: []plugin.Finding{{ID: "simulated", Level: plugin.LevelOK, Message: "machines are simulated in " + h.world.Dir()}},
		Cores:    256, MemoryBytes: 4 << 40, MemoryFreeBytes: 4 << 40, DiskFreeBytes: 64 << 40,
		VMIDFirst: VMIDFirst, VMIDLast: VMIDLast, InterfacePattern: "tap%di0",
	}, nil
}

// ListTemplates lists the one template there is.
func (h *Hypervisor) ListTemplates(ctx context.Context) ([]hypervisor.Template, error) {
	if err := h.world.Reach(ctx, "template.list", ""); err != nil {
		return nil, err
	}
	t := world.Template
	err := h.world.View(ctx, func(tx *world.Tx) (err error) {
		t.Memory, err = tx.Memory()
		return err
	})
	return []hypervisor.Template{t}, err
}

// ListVMs lists machines by owner.
func (h *Hypervisor) ListVMs(ctx context.Context, ownerPrefix string, foreign bool) ([]hypervisor.VM, error) {
	if err := h.world.Reach(ctx, "vm.list", ""); err != nil {
		return nil, err
	}
	list, err := h.world.VMs(ctx)
	if err != nil {
		return nil, err
	}
	var out []hypervisor.VM
	for _, vm := range list {
		if foreign || (vm.Owner != "" && strings.HasPrefix(vm.Owner, ownerPrefix)) {
			out = append(out, present(vm))
		}
	}
	return out, nil
}

// GetVM finds one machine, whoever owns it.
func (h *Hypervisor) GetVM(ctx context.Context, ref hypervisor.Ref) (out hypervisor.VM, err error) {
	if err := h.world.Reach(ctx, "vm.get", subject(ref.VMID)); err != nil {
		return hypervisor.VM{}, err
	}
	err = h.world.View(ctx, func(tx *world.Tx) error {
		vm, err := find(tx, ref.VMID)
		out = present(vm)
		return err
	})
	return out, err
}

// GetStats invents modest figures for machines that are on.
func (h *Hypervisor) GetStats(ctx context.Context, vmids []uint32) (map[uint32]hypervisor.Stats, error) {
	if err := h.world.Reach(ctx, "vm.stats", ""); err != nil {
		return nil, err
	}
	out := map[uint32]hypervisor.Stats{}
	err := h.world.View(ctx, func(tx *world.Tx) error {
		for _, id := range vmids {
			vm, found, err := tx.VM(id)
			if err != nil {
				return err
			}
			if found && vm.Power == hypervisor.PowerOn {
				out[id] = hypervisor.Stats{CPUFraction: 0.01, Window: time.Second, MemoryUsedBytes: vm.MemoryBytes / 4}
			}
		}
		return nil
	})
	return out, err
}

// CreateVM makes a machine in two effects, vm.create and vm.finish, so that a
// kill can leave half of one.
func (h *Hypervisor) CreateVM(ctx context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress)) (hypervisor.VM, error) {
	reach := ctx
	if progress != nil {
		reach = world.WithProgress(ctx, func() { progress(hypervisor.Progress{Phase: "wait"}) })
	}
	if err := h.world.Reach(reach, "vm.create", subject(req.Ref.VMID)); err != nil {
		return hypervisor.VM{}, err
	}
	if err := checkCreate(req); err != nil {
		return hypervisor.VM{}, err
	}
	vm, err := h.reserve(ctx, req)
	if err != nil || !vm.Half {
		return present(vm), err
	}
	if progress != nil {
		progress(hypervisor.Progress{Phase: "clone disk", Fraction: 0.5})
	}
	vm, err = h.finish(ctx, req)
	if err != nil {
		return hypervisor.VM{}, errors.Join(err, h.discard(ctx, req.Ref))
	}
	if progress != nil {
		progress(hypervisor.Progress{Phase: "write seed", Fraction: 1})
	}
	return present(vm), nil
}

func checkCreate(req hypervisor.CreateRequest) error {
	switch {
	case req.Ref.Owner == "":
		return fault.New(fault.Invalid, "a machine needs an owner mark")
	case req.Ref.VMID < VMIDFirst || req.Ref.VMID > VMIDLast:
		return fault.New(fault.Invalid, "vmid %d is not between %d and %d", req.Ref.VMID, VMIDFirst, VMIDLast)
	case req.Cores == 0 || req.MemoryBytes == 0:
		return fault.New(fault.Invalid, "a machine needs cores and memory")
	case req.NIC.MAC == "":
		return fault.New(fault.Invalid, "a machine needs a MAC address")
	}
	return checkTemplate(req.Template)
}

func checkTemplate(name string) error {
	if name == world.Template.Name || name == subject(world.Template.VMID) {
		return nil
	}
	return fault.New(fault.NotFound, "template %s does not exist", name).
		WithHint("there is: %d (%s)", world.Template.VMID, world.Template.Name)
}

// reserve takes the VMID, or finds what the owner has there already.
func (h *Hypervisor) reserve(ctx context.Context, req hypervisor.CreateRequest) (vm world.VM, err error) {
	err = h.world.Change(ctx, func(tx *world.Tx) error {
		var found bool
		if vm, found, err = tx.VM(req.Ref.VMID); err != nil || (found && vm.Owner == req.Ref.Owner) {
			return err
		}
		if found {
			holder := vm.Owner
			vm = world.VM{}
			return fault.New(fault.Exists, "vmid %d belongs to somebody else", req.Ref.VMID).
				WithHolder(holder).WithResource("vm %d", req.Ref.VMID)
		}
		vm = world.VM{
			VMID: req.Ref.VMID, Owner: req.Ref.Owner, Name: req.Name, Template: req.Template,
			Half: true, Lock: "clone", Power: hypervisor.PowerOff,
		}
		tx.Record(world.Effect{Op: "vm.create", Subject: subject(vm.VMID), Owner: vm.Owner})
		return tx.PutVM(vm)
	})
	return vm, err
}

func (h *Hypervisor) finish(ctx context.Context, req hypervisor.CreateRequest) (vm world.VM, err error) {
	err = h.world.Change(ctx, func(tx *world.Tx) error {
		if vm, err = owned(tx, req.Ref); err != nil {
			return err
		}
		vm.Name, vm.Template, vm.Half, vm.Lock = req.Name, req.Template, false, ""
		vm.Cores, vm.MemoryBytes, vm.RootDiskBytes = req.Cores, req.MemoryBytes, req.RootDiskBytes
		vm.NIC, vm.Seed = req.NIC, req.Seed
		tx.Record(world.Effect{Op: "vm.finish", Subject: subject(vm.VMID), Owner: vm.Owner})
		return tx.PutVM(vm)
	})
	return vm, err
}

// discard takes back what a failed create made, also when the caller has gone.
func (h *Hypervisor) discard(ctx context.Context, ref hypervisor.Ref) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return h.world.Change(ctx, func(tx *world.Tx) error {
		vm, err := owned(tx, ref)
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil || !vm.Half {
			return err
		}
		tx.Record(world.Effect{Op: "vm.discard", Subject: subject(vm.VMID), Owner: vm.Owner})
		tx.DeleteVM(vm.VMID)
		return nil
	})
}

// DestroyVM removes the machine and its guest's disk.
func (h *Hypervisor) DestroyVM(ctx context.Context, ref hypervisor.Ref) error {
	if err := h.world.Reach(ctx, "vm.destroy", subject(ref.VMID)); err != nil {
		return err
	}
	err := h.world.Change(ctx, func(tx *world.Tx) error {
		vm, err := owned(tx, ref)
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		tx.Record(world.Effect{Op: "vm.destroy", Subject: subject(vm.VMID), Owner: vm.Owner})
		tx.DeleteVM(vm.VMID)
		return freeVolumes(tx, vm.VMID)
	})
	h.wakeUp()
	return err
}

// Console gives what the guest printed.
func (h *Hypervisor) Console(ctx context.Context, ref hypervisor.Ref) ([]byte, error) {
	if _, err := h.GetVM(ctx, ref); err != nil {
		return nil, err
	}
	return h.world.Console(ref.VMID)
}

func find(tx *world.Tx, vmid uint32) (world.VM, error) {
	vm, found, err := tx.VM(vmid)
	if err == nil && !found {
		err = fault.New(fault.NotFound, "vm %d does not exist", vmid).WithResource("vm %d", vmid)
	}
	return vm, err
}

// owned finds a machine that carries the owner mark of ref and is free.
func owned(tx *world.Tx, ref hypervisor.Ref) (world.VM, error) {
	vm, err := find(tx, ref.VMID)
	if err == nil && (vm.Owner == "" || vm.Owner != ref.Owner) {
		err = fault.New(fault.Precondition, "vm %d does not carry the owner mark %q", ref.VMID, ref.Owner).
			WithResource("vm %d", ref.VMID).WithHolder(vm.Owner)
	}
	if err == nil && vm.Lock != "" && !vm.Half {
		err = fault.New(fault.Locked, "vm %d is locked", ref.VMID).WithResource("vm %d", ref.VMID).WithHolder(vm.Lock)
	}
	return vm, err
}

func present(vm world.VM) hypervisor.VM {
	if vm.VMID == 0 {
		return hypervisor.VM{}
	}
	return hypervisor.VM{
		Ref: hypervisor.Ref{VMID: vm.VMID, Owner: vm.Owner}, Name: vm.Name, Power: vm.Power, Lock: vm.Lock,
		NIC: vm.NIC, Cores: vm.Cores, MemoryBytes: vm.MemoryBytes, Started: vm.Started, Start: vm.Start,
		HostInterface: fmt.Sprintf("tap%di0", vm.VMID),
	}
}
