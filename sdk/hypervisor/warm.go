package hypervisor

import (
	"context"
	"time"
)

// TemplateWarmer is a Driver that can start VMs from the memory of one that has
// booted already (capability "memory_template").
type TemplateWarmer interface {
	// WarmTemplate sees to it that VMs of this size can start from memory: boots
	// one without identity, network or secrets, and freezes it. What is there
	// and still fits is the answer at once; what another call is making is waited
	// for. On failure nothing stays behind. progress is as in CreateVM.
	WarmTemplate(ctx context.Context, req WarmRequest, progress func(Progress)) (Template, error)
}

// WarmRequest names a template and the size of the VMs that are to start from it.
type WarmRequest struct {
	RequestID     string // for logs only
	Template      string // VMID in digits, or name
	Cores         uint32 // 1 or more
	MemoryBytes   uint64
	RootDiskBytes uint64 // as in CreateRequest
}

// MemoryTemplate is a VM of one size, frozen after its boot.
type MemoryTemplate struct {
	Cores         uint32
	MemoryBytes   uint64
	RootDiskBytes uint64
	Created       time.Time
	DiskBytes     uint64 // what it takes on the host
}
