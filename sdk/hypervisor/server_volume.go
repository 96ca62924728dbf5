package hypervisor

import (
	"context"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// able is the driver with an optional interface, or fault.Unsupported.
func able[T any](d Driver, what string) (T, error) {
	t, ok := d.(T)
	if !ok {
		return t, fault.New(fault.Unsupported, "this hypervisor %s", what)
	}
	return t, nil
}

func (s *server) snapshotter() (Snapshotter, error) {
	return able[Snapshotter](s.driver, "makes no snapshots of VMs")
}

func (s *server) keeper() (VolumeKeeper, error) {
	return able[VolumeKeeper](s.driver, "keeps no volumes")
}

func (s *server) CreateSnapshot(ctx context.Context, req *hypervisorv1.SnapshotRequest) (*hypervisorv1.Snapshot, error) {
	d, err := s.snapshotter()
	if err != nil {
		return nil, wire.Status(err)
	}
	snapshot, err := d.CreateSnapshot(ctx, refFromWire(req.GetRef()), req.GetName(), req.GetWithMemory())
	if err != nil {
		return nil, wire.Status(err)
	}
	return snapshotToWire(snapshot), nil
}

func (s *server) RollbackSnapshot(ctx context.Context, req *hypervisorv1.SnapshotRequest) (*hypervisorv1.VM, error) {
	d, err := s.snapshotter()
	if err != nil {
		return nil, wire.Status(err)
	}
	vm, err := d.RollbackSnapshot(ctx, refFromWire(req.GetRef()), req.GetName())
	if err != nil {
		return nil, wire.Status(err)
	}
	return vmToWire(vm), nil
}

func (s *server) DeleteSnapshot(ctx context.Context, req *hypervisorv1.SnapshotRequest) (*hypervisorv1.ListSnapshotsResponse, error) {
	d, err := s.snapshotter()
	if err != nil {
		return nil, wire.Status(err)
	}
	left, err := d.DeleteSnapshot(ctx, refFromWire(req.GetRef()), req.GetName())
	if err != nil {
		return nil, wire.Status(err)
	}
	return snapshotsToWire(left), nil
}

func (s *server) ListSnapshots(ctx context.Context, req *hypervisorv1.VMRef) (*hypervisorv1.ListSnapshotsResponse, error) {
	d, err := s.snapshotter()
	if err != nil {
		return nil, wire.Status(err)
	}
	list, err := d.ListSnapshots(ctx, refFromWire(req))
	if err != nil {
		return nil, wire.Status(err)
	}
	return snapshotsToWire(list), nil
}

func (s *server) CreateVolume(ctx context.Context, req *hypervisorv1.CreateVolumeRequest) (*hypervisorv1.Volume, error) {
	r := cloneFromWire(req)
	if r.FromVolume == "" {
		if r.FromSnapshot != "" {
			return nil, wire.Status(fault.New(fault.Invalid, "snapshot %q of no volume cannot be copied", r.FromSnapshot))
		}
		d, err := s.keeper()
		if err != nil {
			return nil, wire.Status(err)
		}
		return volumeReply(d.CreateVolume(ctx, r.VolumeRequest))
	}
	d, err := able[VolumeCloner](s.driver, "copies no volumes")
	if err != nil {
		return nil, wire.Status(err)
	}
	return volumeReply(d.CloneVolume(ctx, r))
}

func (s *server) GetVolume(ctx context.Context, req *hypervisorv1.VolumeRef) (*hypervisorv1.Volume, error) {
	d, err := s.keeper()
	if err != nil {
		return nil, wire.Status(err)
	}
	return volumeReply(d.GetVolume(ctx, volumeRefFromWire(req)))
}

func (s *server) AttachVolume(ctx context.Context, req *hypervisorv1.AttachVolumeRequest) (*hypervisorv1.Volume, error) {
	d, err := s.keeper()
	if err != nil {
		return nil, wire.Status(err)
	}
	return volumeReply(d.AttachVolume(ctx, refFromWire(req.GetMachine()), volumeRefFromWire(req.GetVolume()), req.GetSerial()))
}

func (s *server) DetachVolume(ctx context.Context, req *hypervisorv1.AttachVolumeRequest) (*hypervisorv1.Volume, error) {
	d, err := s.keeper()
	if err != nil {
		return nil, wire.Status(err)
	}
	return volumeReply(d.DetachVolume(ctx, refFromWire(req.GetMachine()), volumeRefFromWire(req.GetVolume())))
}

func (s *server) DeleteVolume(ctx context.Context, req *hypervisorv1.VolumeRef) (*hypervisorv1.DeleteVolumeResponse, error) {
	d, err := s.keeper()
	if err == nil {
		err = d.DeleteVolume(ctx, volumeRefFromWire(req))
	}
	if err != nil {
		return nil, wire.Status(err)
	}
	return &hypervisorv1.DeleteVolumeResponse{}, nil
}

func (s *server) SnapshotVolume(ctx context.Context, req *hypervisorv1.VolumeSnapshotRequest) (*hypervisorv1.Volume, error) {
	d, err := able[VolumeSnapshotter](s.driver, "makes no snapshots of volumes")
	if err != nil {
		return nil, wire.Status(err)
	}
	action := actionFromWire(req.GetAction())
	if action == "" {
		return nil, wire.Status(fault.New(fault.Invalid, "there is no action %s", req.GetAction()))
	}
	return volumeReply(d.SnapshotVolume(ctx, volumeRefFromWire(req.GetVolume()), req.GetName(), action))
}

func volumeReply(v Volume, err error) (*hypervisorv1.Volume, error) {
	if err != nil {
		return nil, wire.Status(err)
	}
	return volumeToWire(v), nil
}
