package hypervisor

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
)

var snapshotActions = map[SnapshotAction]hypervisorv1.VolumeSnapshotRequest_Action{
	SnapshotCreate:   hypervisorv1.VolumeSnapshotRequest_ACTION_CREATE,
	SnapshotRollback: hypervisorv1.VolumeSnapshotRequest_ACTION_ROLLBACK,
	SnapshotDelete:   hypervisorv1.VolumeSnapshotRequest_ACTION_DELETE,
}

// actionFromWire gives "" for an action that is not known.
func actionFromWire(w hypervisorv1.VolumeSnapshotRequest_Action) SnapshotAction {
	for a, known := range snapshotActions {
		if known == w {
			return a
		}
	}
	return ""
}

func snapshotToWire(s Snapshot) *hypervisorv1.Snapshot {
	return &hypervisorv1.Snapshot{Name: s.Name, Created: timestamppb.New(s.Created), WithMemory: s.WithMemory}
}

func snapshotFromWire(w *hypervisorv1.Snapshot) Snapshot {
	return Snapshot{Name: w.GetName(), Created: w.GetCreated().AsTime(), WithMemory: w.GetWithMemory()}
}

func snapshotsToWire(list []Snapshot) *hypervisorv1.ListSnapshotsResponse {
	out := &hypervisorv1.ListSnapshotsResponse{}
	for _, s := range list {
		out.Snapshots = append(out.Snapshots, snapshotToWire(s))
	}
	return out
}

func snapshotsFromWire(w *hypervisorv1.ListSnapshotsResponse) (out []Snapshot) {
	for _, s := range w.GetSnapshots() {
		out = append(out, snapshotFromWire(s))
	}
	return out
}

func volumeRefToWire(r VolumeRef) *hypervisorv1.VolumeRef {
	return &hypervisorv1.VolumeRef{RequestId: r.RequestID, Id: r.ID, ExpectOwner: r.Owner}
}

func volumeRefFromWire(w *hypervisorv1.VolumeRef) VolumeRef {
	return VolumeRef{RequestID: w.GetRequestId(), ID: w.GetId(), Owner: w.GetExpectOwner()}
}

func volumeToWire(v Volume) *hypervisorv1.Volume {
	return &hypervisorv1.Volume{
		Ref: volumeRefToWire(v.Ref), SizeBytes: v.SizeBytes, Pool: v.Pool,
		AttachedVmid: v.AttachedVMID, Serial: v.Serial, Snapshots: v.Snapshots,
	}
}

func volumeFromWire(w *hypervisorv1.Volume) Volume {
	return Volume{
		Ref: volumeRefFromWire(w.GetRef()), SizeBytes: w.GetSizeBytes(), Pool: w.GetPool(),
		AttachedVMID: w.GetAttachedVmid(), Serial: w.GetSerial(), Snapshots: w.GetSnapshots(),
	}
}

func cloneToWire(r CloneRequest) *hypervisorv1.CreateVolumeRequest {
	return &hypervisorv1.CreateVolumeRequest{
		RequestId: r.RequestID, Owner: r.Owner, Pool: r.Pool, SizeBytes: r.SizeBytes,
		FromVolume: r.FromVolume, FromSnapshot: r.FromSnapshot,
	}
}

func cloneFromWire(w *hypervisorv1.CreateVolumeRequest) CloneRequest {
	return CloneRequest{
		VolumeRequest: VolumeRequest{
			RequestID: w.GetRequestId(), Owner: w.GetOwner(), Pool: w.GetPool(), SizeBytes: w.GetSizeBytes(),
		},
		FromVolume: w.GetFromVolume(), FromSnapshot: w.GetFromSnapshot(),
	}
}
