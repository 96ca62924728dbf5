package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/template"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	minMemory = 64 << 20
	maxCores  = 255
	// Documents of a seed.
	metaData, userData, networkConfig = "meta-data", "user-data", "network-config"
	// maxInterface is the longest name the kernel gives a link.
	maxInterface = 15
)

// CreateVM implements hypervisor.Driver. A VM that was made but has never run
// gets this request's seed, because its token may be another by now, and is made
// anew when the request asks for another VM; one that has run is answered as it
// is.
func (d *Driver) CreateVM(
	ctx context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress),
) (hypervisor.VM, error) {
	var none hypervisor.VM
	if err := d.validate(&req); err != nil {
		return none, err
	}
	unlock, err := d.store.Lock(ctx, req.Ref.VMID)
	if err != nil {
		return none, err
	}
	defer unlock()
	v, err := d.claim(ctx, req)
	if err != nil {
		return none, err
	}
	if v.Booted {
		return d.view(ctx, v)
	}
	if v.State == record.StateReady {
		if err := d.reseed(v, req.Seed); err != nil {
			return none, err
		}
		return d.view(ctx, v)
	}
	if err := d.make(ctx, v, req, progress); err != nil {
		return none, d.undo(v, err)
	}
	return d.view(ctx, v)
}

func (d *Driver) validate(req *hypervisor.CreateRequest) error {
	if req.Ref.VMID < d.cfg.VMIDFirst || req.Ref.VMID > d.cfg.VMIDLast {
		return fault.New(fault.Invalid, "vmid %d is outside %d to %d", req.Ref.VMID, d.cfg.VMIDFirst, d.cfg.VMIDLast)
	}
	if err := validOwner(req.Ref.Owner); err != nil {
		return err
	}
	mac, err := net.ParseMAC(req.NIC.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return fault.New(fault.Invalid, "%q is not the MAC address of a card", req.NIC.MAC)
	}
	req.NIC.MAC = mac.String()
	if req.NIC.Tap == "" {
		req.NIC.Tap = fmt.Sprintf(InterfacePattern, req.Ref.VMID)
	}
	switch {
	case len(req.NIC.Tap) > maxInterface || strings.ContainsAny(req.NIC.Tap, "/ \t\n:%") || req.NIC.Tap == "." || req.NIC.Tap == "..":
		return fault.New(fault.Invalid, "%q is not an interface name", req.NIC.Tap)
	case len(req.Seed.MetaData) == 0 || len(req.Seed.UserData) == 0:
		return fault.New(fault.Invalid, "seed has no meta-data or no user-data")
	}
	return validSize(req.Cores, req.MemoryBytes)
}

func validSize(cores uint32, memoryBytes uint64) error {
	switch {
	case cores == 0 || cores > maxCores:
		return fault.New(fault.Invalid, "%d cores are not between 1 and %d", cores, maxCores)
	case memoryBytes < minMemory:
		return fault.New(fault.Invalid, "memory of %d bytes is less than 64 MiB", memoryBytes)
	}
	return nil
}

// claim gives the VM's record in StateCreating, or the one of a VM that has run
// or is what is asked for. fault.Exists when the VMID is not this owner's to use.
func (d *Driver) claim(ctx context.Context, req hypervisor.CreateRequest) (*record.VM, error) {
	old, err := d.store.Load(req.Ref.VMID)
	switch {
	case errors.Is(err, record.ErrUnreadable):
		return nil, taken(req.Ref.VMID, "")
	case errors.Is(err, fault.NotFound):
		if err := d.endFormer(ctx, req.Ref); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case old.Owner != req.Ref.Owner:
		return nil, taken(req.Ref.VMID, old.Owner)
	case old.Booted:
		return old, nil
	default:
		// A start that never let the guest run may have left its program.
		if err := d.kill(ctx, d.tenant(old)); err != nil {
			return nil, err
		}
		if err := d.store.ForgetFormer(old.VMID); err != nil {
			return nil, err
		}
	}
	v, fresh, err := d.fresh(req)
	if err != nil {
		// A VM half-made before its template went cannot be finished.
		if old != nil {
			return nil, d.undo(old, err)
		}
		return nil, err
	}
	if err := d.unusedUser(fresh); err != nil {
		return nil, err
	}
	if old != nil && d.isMade(old, v) {
		return old, d.clearRun(old)
	}
	if old != nil {
		return v, d.store.Save(v)
	}
	err = d.store.Claim(v)
	if err != nil && !errors.Is(err, fault.Exists) {
		return nil, d.undo(v, err)
	}
	d.crash("claimed")
	return v, err
}

// isMade reports whether the VM that is there is whole and what is asked for.
func (d *Driver) isMade(old, asked *record.VM) bool {
	_, err := os.Stat(d.store.Path(old.VMID, diskName))
	return err == nil && old.State == record.StateReady && old.Alike(asked)
}

func taken(vmid uint32, holder string) *fault.Error {
	return fault.New(fault.Exists, "vm %d belongs to somebody else", vmid).
		WithResource("vm %d", vmid).WithHolder(holder)
}

func (d *Driver) uid(vmid uint32) uint32 { return d.cfg.UIDBase + vmid }

// fresh is the record that the request asks for, and its VMID.
func (d *Driver) fresh(req hypervisor.CreateRequest) (*record.VM, uint32, error) {
	t, err := d.catalog.Find(req.Template)
	if err != nil {
		return nil, 0, err
	}
	vmid := req.Ref.VMID
	return &record.VM{
		VMID: vmid, Owner: req.Ref.Owner, Name: req.Name, State: record.StateCreating,
		Template: noted(t), Cores: req.Cores, MemoryBytes: req.MemoryBytes, DiskBytes: max(req.RootDiskBytes, t.DiskBytes),
		UID: d.uid(vmid),
		NIC: record.NIC{
			Bridge: req.NIC.Bridge, MAC: req.NIC.MAC, Tap: req.NIC.Tap,
			AddressCIDR: req.NIC.AddressCIDR, Gateway: req.NIC.Gateway, DNS: req.NIC.DNS,
		},
	}, vmid, nil
}

// noted is what a record keeps of a template.
func noted(t template.Template) record.Template {
	return record.Template{
		Name: t.Name, Version: t.Version, Disk: t.Disk, DiskBus: string(t.DiskBus),
		Kernel: t.Kernel, Initrd: t.Initrd, Cmdline: t.Cmdline,
	}
}

// make writes the VM's files and marks it ready.
func (d *Driver) make(
	ctx context.Context, v *record.VM, req hypervisor.CreateRequest, progress func(hypervisor.Progress),
) error {
	tell := func(phase string, fraction float64) {
		if progress != nil {
			progress(hypervisor.Progress{Phase: phase, Fraction: fraction})
		}
	}
	tell("write seed", 0)
	if err := d.reseed(v, req.Seed); err != nil {
		return err
	}
	d.crash("seeded")
	if err := d.choose(ctx, v); err != nil {
		return err
	}
	d.crash("chosen")
	tell("clone disk", 0.5)
	if err := d.freshDisk(ctx, v); err != nil {
		return err
	}
	d.crash("cloned")
	if err := ctx.Err(); err != nil {
		return err
	}
	v.State = record.StateReady
	tell("done", 1)
	return d.store.Save(v)
}

// freshDisk gives the VM a disk on which no guest has written yet.
func (d *Driver) freshDisk(ctx context.Context, v *record.VM) error {
	base := v.Template.Disk
	if v.Memory != nil {
		base = v.Memory.Disk
	}
	err := disk.Create(ctx, disk.Overlay{
		Path: d.store.Path(v.VMID, diskName), Base: base, Bytes: v.DiskBytes, UID: v.UID,
	})
	if err != nil {
		return err
	}
	return d.remakeSnapshots(ctx, v)
}

// undo removes the folder of a VM that never ran. It is called under the VM's
// lock, on a record of the caller's owner.
func (d *Driver) undo(v *record.VM, cause error) error {
	if err := d.store.Remove(v.VMID); err != nil {
		d.log.Warn("half-made vm was not removed", "vmid", v.VMID, "err", err)
	}
	return cause
}
