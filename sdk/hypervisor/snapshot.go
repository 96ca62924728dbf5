package hypervisor

import (
	"context"
	"time"
)

// Snapshotter is a Driver that takes VMs back to an earlier moment (capability
// "snapshot"). The owner mark in ref is compared before each change. Names are a
// letter, then letters, digits, - and _, 2 to 40 in all, see CheckSnapshotName.
type Snapshotter interface {
	// CreateSnapshot keeps the root disk as it is now and, with memory, the
	// memory of a VM that is on or paused; the VM goes on as it was. A name that
	// is taken is the answer as it is. fault.Precondition: memory of a VM that is
	// off, or a volume is attached that would be in it; with memory any volume.
	CreateSnapshot(ctx context.Context, ref Ref, name string, withMemory bool) (Snapshot, error)
	// RollbackSnapshot stops the VM hard and takes its root disk back. It is off
	// afterwards; from a snapshot with memory it is on and goes on from that
	// moment. An attached volume stays as it is, or the call is
	// fault.Precondition, as it is always with memory.
	RollbackSnapshot(ctx context.Context, ref Ref, name string) (VM, error)
	// DeleteSnapshot frees the snapshot and gives those that are left. Gone is
	// success.
	DeleteSnapshot(ctx context.Context, ref Ref, name string) ([]Snapshot, error)
	// ListSnapshots gives whole ones only, oldest first.
	ListSnapshots(ctx context.Context, ref Ref) ([]Snapshot, error)
}

// Snapshot is a moment to which a VM can go back.
type Snapshot struct {
	Name       string
	Created    time.Time
	WithMemory bool
}
