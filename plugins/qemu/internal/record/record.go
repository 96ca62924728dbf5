package record

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

// State says how far a VM's folder is.
type State string

// A VM in StateCreating may lack any of its files; CreateVM makes it anew.
const (
	StateCreating State = "creating"
	StateReady    State = "ready"
)

// RunState says how far a start is.
type RunState string

// In RunStarting the guest has not done anything of its user's yet, so the program
// may be killed and started again without loss. In RunNaming it may be about to: it
// goes on from a memory template, has its identity, and is being let go. Nothing
// begins anew from there, the VM is one that has run.
const (
	RunStarting RunState = "starting"
	RunNaming   RunState = "naming"
	RunRunning  RunState = "running"
)

// Complete reports whether the start has got to its end.
func (r *Run) Complete() bool { return r.State == RunRunning }

// AtWork reports whether the guest may be doing what its user wants.
func (r *Run) AtWork() bool { return r.State == RunRunning || r.State == RunNaming }

// VM is the content of vm.json. It holds no secret.
type VM struct {
	Format      int      `json:"format"`
	VMID        uint32   `json:"vmid"`
	Owner       string   `json:"owner"`
	Name        string   `json:"name"`
	State       State    `json:"state"`
	Template    Template `json:"template"`
	Cores       uint32   `json:"cores"`
	MemoryBytes uint64   `json:"memory_bytes"`
	DiskBytes   uint64   `json:"disk_bytes"`
	NIC         NIC      `json:"nic"`
	UID         uint32   `json:"uid"`
	Memory      *Memory  `json:"memory,omitempty"`
	Booted      bool     `json:"booted"` // it has run at least once
	Run         *Run     `json:"run,omitempty"`
}

// Template is what the VM depends on for life, as absolute paths.
type Template struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Disk    string `json:"disk"`
	DiskBus string `json:"disk_bus,omitempty"`
	Kernel  string `json:"kernel,omitempty"`
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
}

// Memory is the memory template that the VM was made for. Its disk depends on that
// template's for life.
type Memory struct {
	Key  string `json:"key"`
	Disk string `json:"disk"` // frozen, as an absolute path
	// Spent: a guest may have written to the VM's disk without ever being
	// complete. The next start makes the disk anew.
	Spent bool `json:"spent,omitempty"`
}

// NIC repeats the request's card.
type NIC struct {
	Bridge      string   `json:"bridge"`
	MAC         string   `json:"mac"`
	Tap         string   `json:"tap"`
	AddressCIDR string   `json:"address_cidr"`
	Gateway     string   `json:"gateway"`
	DNS         []string `json:"dns,omitempty"`
}

// Run names a started program. PID is 0 until it is known.
type Run struct {
	State      RunState  `json:"state"`
	PID        int       `json:"pid,omitempty"`
	StartTicks uint64    `json:"start_ticks,omitempty"` // field 22 of /proc/PID/stat
	BootID     string    `json:"boot_id"`
	Started    time.Time `json:"started"`
	Accel      string    `json:"accel,omitempty"`
	Way        string    `json:"way,omitempty"`    // boot or memory
	Reason     string    `json:"reason,omitempty"` // why it had to boot
	// Mark is in the program's arguments, where it was a spare's: see ClaimSpare.
	Mark string `json:"mark,omitempty"`
}

// Mark is the UUID that the VM's program carries in its arguments. It follows
// from owner and VMID, so a program can be told from its neighbours even when
// its pid was never written down.
func Mark(vmid uint32, owner string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "agentlab vm %d of %s", vmid, owner))
	h[6] = h[6]&0x0f | 0x80 // version 8: made by rules of our own
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// Alike reports whether both records ask for the same VM, however far each is
// made and run.
func (v *VM) Alike(other *VM) bool {
	bare := func(v VM) string {
		v.Format, v.State, v.Booted, v.Run, v.Memory = 0, "", false, nil, nil
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings, numbers and bools only
		}
		return string(raw)
	}
	return bare(*v) == bare(*other)
}

// Mark is the mark of this VM's program.
func (v *VM) Mark() string {
	if v.Run != nil && v.Run.Mark != "" {
		return v.Run.Mark
	}
	return Mark(v.VMID, v.Owner)
}

// Bases are the disks that the VM's own lies on, the nearest last.
func (v *VM) Bases() []string {
	if v.Memory == nil {
		return []string{v.Template.Disk}
	}
	return []string{v.Template.Disk, v.Memory.Disk}
}
