package hypervisor

import "context"

// VolumeKeeper is a Driver that keeps disks which outlive VMs (capability
// "volumes"). Owner marks, of VMs and volumes, are compared before each change.
type VolumeKeeper interface {
	// CreateVolume makes a blank disk. An owner has one volume: the one that is
	// there is the answer, whatever its size. On failure nothing stays behind.
	CreateVolume(ctx context.Context, req VolumeRequest) (Volume, error)
	// GetVolume answers fault.NotFound only when the volume is certainly gone.
	GetVolume(ctx context.Context, ref VolumeRef) (Volume, error)
	// AttachVolume gives the VM the disk under this serial, now if it is on and
	// each time it is started, until it is detached. fault.Precondition while
	// another VM has it or it has another serial, fault.Exists when another disk
	// of the VM has the serial. See CheckSerial.
	AttachVolume(ctx context.Context, vm Ref, volume VolumeRef, serial string) (Volume, error)
	// DetachVolume is fault.Precondition while the VM runs, unless the guest says
	// that nothing uses the disk. One that no VM has is detached already.
	DetachVolume(ctx context.Context, vm Ref, volume VolumeRef) (Volume, error)
	// DeleteVolume is fault.Precondition while a VM has it. Its snapshots go with
	// it. Gone is success.
	DeleteVolume(ctx context.Context, ref VolumeRef) error
}

// VolumeSnapshotter is a VolumeKeeper that takes volumes back to an earlier
// moment (capability "volume_snapshot").
type VolumeSnapshotter interface {
	// SnapshotVolume is fault.Precondition while the volume is attached to a VM
	// that is not off. A name that is taken is the answer to Create, one that is
	// gone a success of Delete, and fault.NotFound for Rollback. Names are as in
	// Snapshotter.
	SnapshotVolume(ctx context.Context, ref VolumeRef, name string, action SnapshotAction) (Volume, error)
}

// VolumeCloner is a VolumeKeeper that copies volumes (capability
// "volume_clone").
type VolumeCloner interface {
	// CloneVolume is CreateVolume with the content of another volume, or of its
	// snapshot. The copy depends on nothing. The source is at rest, as in
	// SnapshotVolume.
	CloneVolume(ctx context.Context, req CloneRequest) (Volume, error)
}

// SnapshotAction is what SnapshotVolume does.
type SnapshotAction string

// The actions.
const (
	SnapshotCreate   SnapshotAction = "create"
	SnapshotRollback SnapshotAction = "rollback"
	SnapshotDelete   SnapshotAction = "delete"
)

// VolumeRef names one volume. Owner is as in Ref.
type VolumeRef struct {
	RequestID string // for logs only
	ID        string // the plugin's own
	Owner     string
}

// Volume is one disk as the hypervisor sees it now.
type Volume struct {
	Ref          VolumeRef // Ref.Owner is the mark as stored
	SizeBytes    uint64
	Pool         string
	AttachedVMID uint32   // 0: no VM has it, or only one that is gone
	Serial       string   // under which it is attached
	Snapshots    []string // oldest first
}

// VolumeRequest asks for one volume.
type VolumeRequest struct {
	RequestID string // for logs only
	Owner     string
	Pool      string // "": the plugin chooses
	SizeBytes uint64 // at least this
}

// CloneRequest asks for a copy. SizeBytes 0 keeps the source's size; it is never
// less.
type CloneRequest struct {
	VolumeRequest
	FromVolume   string // ID of the source
	FromSnapshot string // "": as it is now
}
