package world

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
)

// VM is a simulated machine.
type VM struct {
	VMID          uint32           `json:"vmid"`
	Owner         string           `json:"owner"` // "" cannot be read, as with a foreign VM
	Name          string           `json:"name"`
	Template      string           `json:"template"`
	Half          bool             `json:"half,omitempty"` // CreateVM did not come to its end
	Power         hypervisor.Power `json:"power"`
	Lock          string           `json:"lock,omitempty"`
	NIC           hypervisor.NIC   `json:"nic"`
	Cores         uint32           `json:"cores"`
	MemoryBytes   uint64           `json:"memory_bytes"`
	RootDiskBytes uint64           `json:"root_disk_bytes"`
	Seed          hypervisor.Seed  `json:"seed"`
	Boot          uint64           `json:"boot"` // counts power-ons
	Started       time.Time        `json:"started,omitzero"`
	Start         hypervisor.Start `json:"start,omitzero"`
	Deaf          bool             `json:"deaf,omitempty"` // ignores a request to shut down

	Snapshots []hypervisor.Snapshot `json:"snapshots,omitempty"` // oldest first
}

// Volume is a simulated disk that outlives VMs.
type Volume struct {
	hypervisor.Volume
	Busy bool `json:",omitempty"` // set by a test: the guest has it mounted
}

// Attachment is a sandbox's policy in force.
type Attachment struct {
	network.AttachRequest
	Drift         string `json:",omitempty"` // set by a test: what differs from the wish
	DeniedPackets uint64 `json:",omitempty"`
}

// Template is what VMs are cloned from.
var Template = hypervisor.Template{
	VMID: 9000, Name: "debian-12", Version: "sim", SSHUser: "agent", Agents: []string{"claude", "codex", "opencode"},
}

func vmFile(vmid uint32) string       { return fmt.Sprintf("%s/%d.json", vms, vmid) }
func guestFile(vmid uint32) string    { return fmt.Sprintf("%s/%d.json", guests, vmid) }
func consoleFile(v uint32) string     { return fmt.Sprintf("%s/%d.console", guests, v) }
func runFile(vmid uint32) string      { return fmt.Sprintf("%s/%d.run", guests, vmid) }
func attachmentFile(s string) string  { return attachments + "/" + s + ".json" }
func exposureFile(port uint16) string { return fmt.Sprintf("%s/%d.json", exposures, port) }

func volumeFile(id string) string { return volumes + "/" + id + ".json" }

const (
	hostFile   = "host.json"
	memoryFile = "memory.json"
)

// VM finds a machine.
func (tx *Tx) VM(vmid uint32) (vm VM, found bool, err error) {
	found, err = tx.get(vmFile(vmid), &vm)
	return vm, found, err
}

// PutVM stages a machine.
func (tx *Tx) PutVM(vm VM) error { return tx.put(vmFile(vm.VMID), vm) }

// DeleteVM stages the end of a machine and of its disk.
func (tx *Tx) DeleteVM(vmid uint32) {
	tx.delete(vmFile(vmid))
	tx.delete(guestFile(vmid))
	tx.delete(consoleFile(vmid))
	tx.delete(runFile(vmid))
}

// VMs lists all machines, foreign ones too.
func (tx *Tx) VMs() ([]VM, error) {
	var out []VM
	err := each(tx, vms, func(_ string, vm VM) error {
		out = append(out, vm)
		return nil
	})
	return out, err
}

// Volume finds a volume.
func (tx *Tx) Volume(id string) (v Volume, found bool, err error) {
	found, err = tx.get(volumeFile(id), &v)
	return v, found, err
}

// PutVolume stages a volume.
func (tx *Tx) PutVolume(v Volume) error { return tx.put(volumeFile(v.Ref.ID), v) }

// DeleteVolume stages the end of a volume.
func (tx *Tx) DeleteVolume(id string) { tx.delete(volumeFile(id)) }

// Volumes lists all volumes.
func (tx *Tx) Volumes() ([]Volume, error) {
	var out []Volume
	err := each(tx, volumes, func(_ string, v Volume) error {
		out = append(out, v)
		return nil
	})
	return out, err
}

// Attachment finds the policy of a sandbox.
func (tx *Tx) Attachment(sandboxID string) (a Attachment, found bool, err error) {
	found, err = tx.get(attachmentFile(sandboxID), &a)
	return a, found, err
}

// PutAttachment stages a policy.
func (tx *Tx) PutAttachment(a Attachment) error { return tx.put(attachmentFile(a.SandboxID), a) }

// DeleteAttachment stages the end of a policy.
func (tx *Tx) DeleteAttachment(sandboxID string) { tx.delete(attachmentFile(sandboxID)) }

// Attachments lists all policies.
func (tx *Tx) Attachments() ([]Attachment, error) {
	var out []Attachment
	err := each(tx, attachments, func(_ string, a Attachment) error {
		out = append(out, a)
		return nil
	})
	return out, err
}

// Memory lists the sizes of machines that start from memory.
func (tx *Tx) Memory() (all []hypervisor.MemoryTemplate, err error) {
	_, err = tx.get(memoryFile, &all)
	return all, err
}

// PutMemory stages that list.
func (tx *Tx) PutMemory(all []hypervisor.MemoryTemplate) error { return tx.put(memoryFile, all) }

// Host finds the network set-up of the host.
func (tx *Tx) Host() (h network.Host, found bool, err error) {
	found, err = tx.get(hostFile, &h)
	return h, found, err
}

// PutHost stages the network set-up of the host.
func (tx *Tx) PutHost(h network.Host) error { return tx.put(hostFile, h) }

// Rule finds what is published on a port.
func (tx *Tx) Rule(port uint16) (r exposure.Rule, found bool, err error) {
	found, err = tx.get(exposureFile(port), &r)
	return r, found, err
}

// PutRule stages a published port.
func (tx *Tx) PutRule(r exposure.Rule) error { return tx.put(exposureFile(r.HostPort), r) }

// DeleteRule stages the end of a published port.
func (tx *Tx) DeleteRule(port uint16) { tx.delete(exposureFile(port)) }

// Rules lists all published ports.
func (tx *Tx) Rules() ([]exposure.Rule, error) {
	var out []exposure.Rule
	err := each(tx, exposures, func(_ string, r exposure.Rule) error {
		out = append(out, r)
		return nil
	})
	return out, err
}

func each[T any](tx *Tx, folder string, fn func(name string, v T) error) error {
	names, err := tx.w.names(folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		var v T
		found, err := tx.get(folder+"/"+name+".json", &v)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if err := fn(name, v); err != nil {
			return err
		}
	}
	return nil
}

// View runs fn on the locked world; nothing that fn stages happens.
func (w *World) View(ctx context.Context, fn func(*Tx) error) error {
	release, err := w.settle(ctx)
	if err != nil {
		return err
	}
	defer release()
	return fn(&Tx{w: w})
}

// VMs lists all machines, for tests.
func (w *World) VMs(ctx context.Context) (list []VM, err error) {
	err = w.View(ctx, func(tx *Tx) error {
		list, err = tx.VMs()
		return err
	})
	return list, err
}

// Plant makes a machine behind everybody's back: a foreign one, or one that a
// person changed by hand. It counts as an effect "vm.plant".
func (w *World) Plant(ctx context.Context, vm VM) error {
	return w.Change(ctx, func(tx *Tx) error {
		tx.Record(Effect{Op: "vm.plant", Subject: strconv.FormatUint(uint64(vm.VMID), 10), Owner: vm.Owner})
		return tx.PutVM(vm)
	})
}

// PowerCut turns every machine off, as a reboot of the host does. It counts as
// an effect "host.reboot".
func (w *World) PowerCut(ctx context.Context) error {
	return w.Change(ctx, func(tx *Tx) error {
		list, err := tx.VMs()
		if err != nil {
			return err
		}
		tx.Record(Effect{Op: "host.reboot"})
		for _, vm := range list {
			vm.Power, vm.Started = hypervisor.PowerOff, time.Time{}
			if err := tx.PutVM(vm); err != nil {
				return err
			}
		}
		return nil
	})
}

// errGone tells a guest that its machine is not the one it runs on any more.
func errGone(vmid uint32) error {
	return fault.New(fault.Precondition, "vm %d does not run this guest any more", vmid)
}
