package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var storageCrashRules = []ruled[*machineCrash]{
	changes("hypervisor.killed-in-volume", 3, "kills the process at six moments of making a volume and attaching it to a running VM, and does both again",
		"A repeat converges and answers the current state", (*machineCrash).inVolume),
	changes("hypervisor.killed-in-snapshot", 3, "kills the process at six moments of a snapshot, and of a rollback, and does it again",
		"A repeat converges and answers the current state", (*machineCrash).inSnapshot),
}

// inVolume: whatever a kill leaves, a repeat ends with one volume, attached.
func (c *machineCrash) inVolume(ctx context.Context) error {
	return c.each(ctx, func(m *machines, req hypervisor.CreateRequest) error {
		volume := m.volumeRequest()
		both := func(d hypervisor.Driver) error {
			k, err := m.on(d).keeper(ctx)
			if err != nil {
				return err
			}
			v, err := k.CreateVolume(ctx, volume)
			if err != nil {
				return fmt.Errorf("create volume: %w", err)
			}
			m.madeVolume(v)
			v, err = k.AttachVolume(ctx, req.Ref, v.Ref, "work")
			if err != nil {
				return fmt.Errorf("attach volume: %w", err)
			}
			return m.on(d).holds(ctx, k, v, req.Ref.VMID, "work")
		}
		ready := func(d hypervisor.Driver) error {
			if _, err := m.on(d).keeper(ctx); err != nil {
				return err
			}
			return m.on(d).createAndStart(ctx, req)
		}
		undo := func(d hypervisor.Driver) error { return m.on(d).undoVolume(ctx, req.Ref, volume) }
		if err := c.with(ctx, ready); err != nil {
			return err
		}
		took, err := c.time(ctx, both)
		if err = errors.Join(err, c.with(ctx, undo)); err != nil {
			return err
		}
		return atEachMoment(took, func(after time.Duration) error {
			err := c.killed(ctx, after, func(d hypervisor.Driver, _ func()) error { return both(d) })
			return errors.Join(err, c.with(ctx, func(d hypervisor.Driver) error { return errors.Join(both(d), undo(d)) }))
		})
	})
}

func (m *machines) createAndStart(ctx context.Context, req hypervisor.CreateRequest) error {
	if _, err := m.CreateVM(ctx, req, nil); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	return m.turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn)
}

// undoVolume takes the volume out of a VM that is off for the while, since its
// guest need not answer.
func (m *machines) undoVolume(ctx context.Context, vm hypervisor.Ref, req hypervisor.VolumeRequest) error {
	k, err := m.keeper(ctx)
	if err != nil {
		return err
	}
	v, err := k.CreateVolume(ctx, req)
	if err != nil {
		return fmt.Errorf("create volume: %w", err)
	}
	if err := m.turn(ctx, vm, hypervisor.PowerOff, hypervisor.PowerOff); err != nil {
		return err
	}
	if err := m.detachTwice(ctx, k, vm, v); err != nil {
		return err
	}
	if err := k.DeleteVolume(ctx, v.Ref); err != nil {
		return fmt.Errorf("delete volume: %w", err)
	}
	return m.turn(ctx, vm, hypervisor.PowerOn, hypervisor.PowerOn)
}

// inSnapshot: whatever a kill leaves, a repeat ends with one snapshot, and back
// at it.
func (c *machineCrash) inSnapshot(ctx context.Context) error {
	return c.each(ctx, func(m *machines, req hypervisor.CreateRequest) error {
		both := func(d hypervisor.Driver) error {
			s, err := m.on(d).snapshotter(ctx)
			if err != nil {
				return err
			}
			if _, err := s.CreateSnapshot(ctx, req.Ref, "crash", false); err != nil {
				return fmt.Errorf("create snapshot: %w", err)
			}
			return errors.Join(m.on(d).back(ctx, s, req.Ref, "crash", hypervisor.PowerOff), m.snapshots(ctx, s, req.Ref, "crash"))
		}
		undo := func(d hypervisor.Driver) error {
			s, err := m.on(d).snapshotter(ctx)
			if err != nil {
				return err
			}
			if _, err := s.DeleteSnapshot(ctx, req.Ref, "crash"); err != nil {
				return fmt.Errorf("delete snapshot: %w", err)
			}
			return errors.Join(m.snapshots(ctx, s, req.Ref), m.on(d).turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn))
		}
		err := c.with(ctx, func(d hypervisor.Driver) error {
			if _, err := m.on(d).snapshotter(ctx); err != nil {
				return err
			}
			return m.on(d).createAndStart(ctx, req)
		})
		if err != nil {
			return err
		}
		took, err := c.time(ctx, both)
		if err = errors.Join(err, c.with(ctx, undo)); err != nil {
			return err
		}
		return atEachMoment(took, func(after time.Duration) error {
			err := c.killed(ctx, after, func(d hypervisor.Driver, _ func()) error { return both(d) })
			return errors.Join(err, c.with(ctx, func(d hypervisor.Driver) error { return errors.Join(both(d), undo(d)) }))
		})
	})
}
