package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func (m *machines) volumeSnapshot(ctx context.Context) error {
	k, v, err := m.volume(ctx)
	if err != nil {
		return err
	}
	s, ok := m.Driver.(hypervisor.VolumeSnapshotter)
	if ok {
		_, err := s.SnapshotVolume(ctx, v.Ref, "never-made", hypervisor.SnapshotDelete)
		ok = !errors.Is(err, fault.Unsupported)
	}
	if !ok {
		return fmt.Errorf("%w: a hypervisor that makes snapshots of volumes", ErrSkipped)
	}
	act := func(name string, action hypervisor.SnapshotAction, want ...string) error {
		for range 2 {
			got, err := s.SnapshotVolume(ctx, v.Ref, name, action)
			if err != nil {
				return fmt.Errorf("%s snapshot %s: %w", action, name, err)
			}
			if !slices.Equal(got.Snapshots, want) {
				return saw("after %s of %s the snapshots are %q", action, name, got.Snapshots).want("%q", want)
			}
		}
		return nil
	}
	if err := act("one", hypervisor.SnapshotCreate, "one"); err != nil {
		return err
	}
	if err := act("one", hypervisor.SnapshotRollback, "one"); err != nil {
		return err
	}
	if err := refusesSnapshots(ctx, s, v.Ref); err != nil {
		return err
	}
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if _, err := k.AttachVolume(ctx, ref, v.Ref, "work"); err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	for _, action := range []hypervisor.SnapshotAction{hypervisor.SnapshotCreate, hypervisor.SnapshotRollback} {
		_, err := s.SnapshotVolume(ctx, v.Ref, "one", action)
		if err := wantClass(string(action)+" while a running vm has it", err, fault.Precondition); err != nil {
			return err
		}
	}
	if err := m.DestroyVM(ctx, ref); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	return act("one", hypervisor.SnapshotDelete)
}

func refusesSnapshots(ctx context.Context, s hypervisor.VolumeSnapshotter, ref hypervisor.VolumeRef) error {
	_, bad := s.SnapshotVolume(ctx, ref, "1", hypervisor.SnapshotCreate)
	_, none := s.SnapshotVolume(ctx, ref, "never-made", hypervisor.SnapshotRollback)
	ref.Owner += "x"
	_, stranger := s.SnapshotVolume(ctx, ref, "one", hypervisor.SnapshotDelete)
	return errors.Join(
		wantClass("snapshot of a bad name", bad, fault.Invalid),
		wantClass("rollback to what is not there", none, fault.NotFound),
		wantClass("delete of a stranger's snapshot", stranger, fault.Precondition),
	)
}

func (m *machines) volumeClone(ctx context.Context) error {
	k, source, err := m.volume(ctx)
	if err != nil {
		return err
	}
	cloner, ok := m.Driver.(hypervisor.VolumeCloner)
	if !ok {
		return fmt.Errorf("%w: a hypervisor that copies volumes", ErrSkipped)
	}
	smaller, missing := m.cloneRequest(source), m.cloneRequest(source)
	smaller.SizeBytes, missing.FromVolume = 1<<20, "there-is-no-such-volume"
	_, tooSmall := cloner.CloneVolume(ctx, smaller)
	if errors.Is(tooSmall, fault.Unsupported) {
		return fmt.Errorf("%w: a hypervisor that copies volumes", ErrSkipped)
	}
	_, none := cloner.CloneVolume(ctx, missing)
	err = errors.Join(wantClass("a copy smaller than its source", tooSmall, fault.Invalid), wantClass("a copy of nothing", none, fault.NotFound))
	if err != nil {
		return err
	}
	req := m.cloneRequest(source)
	first, err := cloner.CloneVolume(ctx, req)
	if err != nil {
		return fmt.Errorf("clone volume: %w", err)
	}
	m.madeVolume(first)
	if first.Ref.ID == source.Ref.ID || first.Ref.Owner != req.Owner || first.SizeBytes < source.SizeBytes || first.AttachedVMID != 0 {
		return saw("the copy is %+v", first).want("another volume, of %q, as large as %+v", req.Owner, source)
	}
	if err := m.cloneOfRunning(ctx, k, cloner, source); err != nil {
		return err
	}
	if err := k.DeleteVolume(ctx, source.Ref); err != nil {
		return fmt.Errorf("delete the source of a copy: %w", err)
	}
	again, err := cloner.CloneVolume(ctx, req) // its source is gone
	if err != nil || again.Ref.ID != first.Ref.ID {
		return saw("a repeated clone answers %+v (%v)", again, err).want("the one that is there: %+v", first)
	}
	return m.holds(ctx, k, first, 0, "")
}

func (m *machines) cloneRequest(source hypervisor.Volume) hypervisor.CloneRequest {
	req := hypervisor.CloneRequest{VolumeRequest: m.volumeRequest(), FromVolume: source.Ref.ID}
	req.SizeBytes = 0
	return req
}

// cloneOfRunning: what a running VM has is copied in no state.
func (m *machines) cloneOfRunning(ctx context.Context, k hypervisor.VolumeKeeper, cloner hypervisor.VolumeCloner, source hypervisor.Volume) error {
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if _, err := k.AttachVolume(ctx, ref, source.Ref, "work"); err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	_, err = cloner.CloneVolume(ctx, m.cloneRequest(source))
	if err := wantClass("a copy of what a running vm has", err, fault.Precondition); err != nil {
		return err
	}
	return m.DestroyVM(ctx, ref)
}
