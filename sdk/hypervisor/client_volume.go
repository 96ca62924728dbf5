package hypervisor

import (
	"context"

	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

var (
	_ Snapshotter       = (*Client)(nil)
	_ VolumeKeeper      = (*Client)(nil)
	_ VolumeSnapshotter = (*Client)(nil)
	_ VolumeCloner      = (*Client)(nil)
)

// CreateSnapshot is Snapshotter.CreateSnapshot.
func (c *Client) CreateSnapshot(ctx context.Context, ref Ref, name string, withMemory bool) (Snapshot, error) {
	s, err := c.rpc.CreateSnapshot(ctx, &hypervisorv1.SnapshotRequest{Ref: refToWire(ref), Name: name, WithMemory: withMemory})
	if err != nil {
		return Snapshot{}, wire.Error(err)
	}
	return snapshotFromWire(s), nil
}

// RollbackSnapshot is Snapshotter.RollbackSnapshot.
func (c *Client) RollbackSnapshot(ctx context.Context, ref Ref, name string) (VM, error) {
	v, err := c.rpc.RollbackSnapshot(ctx, &hypervisorv1.SnapshotRequest{Ref: refToWire(ref), Name: name})
	if err != nil {
		return VM{}, wire.Error(err)
	}
	return vmFromWire(v), nil
}

// DeleteSnapshot is Snapshotter.DeleteSnapshot.
func (c *Client) DeleteSnapshot(ctx context.Context, ref Ref, name string) ([]Snapshot, error) {
	r, err := c.rpc.DeleteSnapshot(ctx, &hypervisorv1.SnapshotRequest{Ref: refToWire(ref), Name: name})
	if err != nil {
		return nil, wire.Error(err)
	}
	return snapshotsFromWire(r), nil
}

// ListSnapshots is Snapshotter.ListSnapshots.
func (c *Client) ListSnapshots(ctx context.Context, ref Ref) ([]Snapshot, error) {
	r, err := c.rpc.ListSnapshots(ctx, refToWire(ref))
	if err != nil {
		return nil, wire.Error(err)
	}
	return snapshotsFromWire(r), nil
}

// CreateVolume is VolumeKeeper.CreateVolume.
func (c *Client) CreateVolume(ctx context.Context, req VolumeRequest) (Volume, error) {
	return c.CloneVolume(ctx, CloneRequest{VolumeRequest: req})
}

// CloneVolume is VolumeCloner.CloneVolume.
func (c *Client) CloneVolume(ctx context.Context, req CloneRequest) (Volume, error) {
	return volumeAnswer(c.rpc.CreateVolume(ctx, cloneToWire(req)))
}

// GetVolume is VolumeKeeper.GetVolume.
func (c *Client) GetVolume(ctx context.Context, ref VolumeRef) (Volume, error) {
	return volumeAnswer(c.rpc.GetVolume(ctx, volumeRefToWire(ref)))
}

// AttachVolume is VolumeKeeper.AttachVolume.
func (c *Client) AttachVolume(ctx context.Context, vm Ref, volume VolumeRef, serial string) (Volume, error) {
	return volumeAnswer(c.rpc.AttachVolume(ctx, &hypervisorv1.AttachVolumeRequest{
		Machine: refToWire(vm), Volume: volumeRefToWire(volume), Serial: serial,
	}))
}

// DetachVolume is VolumeKeeper.DetachVolume.
func (c *Client) DetachVolume(ctx context.Context, vm Ref, volume VolumeRef) (Volume, error) {
	return volumeAnswer(c.rpc.DetachVolume(ctx, &hypervisorv1.AttachVolumeRequest{
		Machine: refToWire(vm), Volume: volumeRefToWire(volume),
	}))
}

// DeleteVolume is VolumeKeeper.DeleteVolume.
func (c *Client) DeleteVolume(ctx context.Context, ref VolumeRef) error {
	_, err := c.rpc.DeleteVolume(ctx, volumeRefToWire(ref))
	return wire.Error(err)
}

// SnapshotVolume is VolumeSnapshotter.SnapshotVolume.
func (c *Client) SnapshotVolume(ctx context.Context, ref VolumeRef, name string, action SnapshotAction) (Volume, error) {
	return volumeAnswer(c.rpc.SnapshotVolume(ctx, &hypervisorv1.VolumeSnapshotRequest{
		Volume: volumeRefToWire(ref), Name: name, Action: snapshotActions[action],
	}))
}

func volumeAnswer(v *hypervisorv1.Volume, err error) (Volume, error) {
	if err != nil {
		return Volume{}, wire.Error(err)
	}
	return volumeFromWire(v), nil
}
