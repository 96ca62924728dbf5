package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var snapshotRules = []ruled[*machines]{
	changes("hypervisor.snapshot", 2, "makes, lists, goes back to and deletes snapshots of a VM, off and on, each twice",
		"A VM is off afterwards; from a snapshot with memory it is on, and goes on from that moment.", (*machines).snapshot),
	changes("hypervisor.snapshot-memory", 2, "keeps the memory of a VM and goes back to it from off",
		"Keeps the root disk as it is now and, with with_memory, the memory of a VM that is on or paused (PRECONDITION when it is off); the VM goes on as it was.",
		(*machines).snapshotMemory),
	changes("hypervisor.snapshot-names", 2, "uses names that are none, and one of no snapshot",
		`Names of snapshots, of VMs and volumes: a letter, then letters, digits, - and _, 2 to 40 in all, and not "current". INVALID otherwise.`,
		(*machines).snapshotNames),
	changes("hypervisor.snapshot-owner", 2, "makes, goes back to and deletes snapshots under other owner marks",
		"PRECONDITION unless the stored owner equals ref.expect_owner.", (*machines).snapshotOwner),
	changes("hypervisor.snapshot-volume", 2, "makes snapshots of a VM that has a volume, and goes back to them",
		"An attached volume stays as it is and attached, or the call is PRECONDITION, as it is always from a snapshot with memory.",
		(*machines).snapshotVolume),
}

// snapshotter is the driver, where it makes snapshots.
func (m *machines) snapshotter(ctx context.Context) (hypervisor.Snapshotter, error) {
	s, ok := m.Driver.(hypervisor.Snapshotter)
	if ok {
		_, err := s.ListSnapshots(ctx, hypervisor.Ref{VMID: m.host.VMIDLast})
		ok = !errors.Is(err, fault.Unsupported)
	}
	if !ok {
		return nil, fmt.Errorf("%w: a hypervisor that makes snapshots", ErrSkipped)
	}
	return s, nil
}

// snapshots checks the list.
func (m *machines) snapshots(ctx context.Context, s hypervisor.Snapshotter, ref hypervisor.Ref, want ...string) error {
	list, err := s.ListSnapshots(ctx, ref)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	return named(list, want...)
}

func named(list []hypervisor.Snapshot, want ...string) error {
	var names []string
	for _, one := range list {
		if names = append(names, one.Name); one.Created.IsZero() {
			return saw("snapshot %s was made at no time", one.Name).want("a time")
		}
	}
	if !slices.Equal(names, want) {
		return saw("snapshots are %q", names).want("%q, oldest first", want)
	}
	return nil
}

// kept makes a snapshot twice, and looks that the VM is as it was.
func (m *machines) kept(ctx context.Context, s hypervisor.Snapshotter, ref hypervisor.Ref, name string, withMemory bool) error {
	before, err := m.GetVM(ctx, ref)
	if err != nil {
		return fmt.Errorf("get vm: %w", err)
	}
	first, err := s.CreateSnapshot(ctx, ref, name, withMemory)
	if err != nil {
		return fmt.Errorf("create snapshot %s (memory: %t): %w", name, withMemory, err)
	}
	if first.Name != name || first.WithMemory != withMemory {
		return saw("the snapshot is %+v", first).want("%s, with memory: %t", name, withMemory)
	}
	err = m.opts.Effects.unchanged(ctx, "a repeated create snapshot", func() error {
		again, err := s.CreateSnapshot(ctx, ref, name, withMemory)
		if err != nil {
			return fmt.Errorf("repeat create snapshot: %w", err)
		}
		if !again.Created.Equal(first.Created) {
			return saw("a repeated create snapshot answers %+v", again).want("the one that is there: %+v", first)
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := m.GetVM(ctx, ref)
	if err != nil || after.Power != before.Power || !after.Started.Equal(before.Started) {
		return saw("after the snapshot the vm is %s, started %s (%v)", after.Power, after.Started, err).
			want("%s, started %s, as before", before.Power, before.Started)
	}
	return nil
}

// back goes to a snapshot and checks the answer and what is read back.
func (m *machines) back(ctx context.Context, s hypervisor.Snapshotter, ref hypervisor.Ref, name string, want hypervisor.Power) error {
	answer, err := s.RollbackSnapshot(ctx, ref, name)
	if err != nil {
		return fmt.Errorf("roll back to %s: %w", name, err)
	}
	got, err := m.GetVM(ctx, ref)
	if err != nil {
		return fmt.Errorf("get vm: %w", err)
	}
	if answer.Power != want || got.Power != want || answer.Ref.Owner != ref.Owner {
		return saw("after the rollback the answer says %+v, get says %q", answer, got.Power).want("%q", want)
	}
	return nil
}

func (m *machines) snapshot(ctx context.Context) error {
	s, err := m.snapshotter(ctx)
	if err != nil {
		return err
	}
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	ref := req.Ref
	if err := errors.Join(m.snapshots(ctx, s, ref), m.kept(ctx, s, ref, "off", false)); err != nil {
		return err
	}
	if err := m.turn(ctx, ref, hypervisor.PowerOn, hypervisor.PowerOn); err != nil {
		return err
	}
	if err := m.kept(ctx, s, ref, "on", false); err != nil {
		return err
	}
	for range 2 {
		if err := m.back(ctx, s, ref, "on", hypervisor.PowerOff); err != nil {
			return err
		}
	}
	if err := m.snapshots(ctx, s, ref, "off", "on"); err != nil {
		return err
	}
	// One that keeps only the newest is cleared before it goes back further.
	err = m.back(ctx, s, ref, "off", hypervisor.PowerOff)
	if err != nil && !errors.Is(err, fault.Precondition) {
		return err
	}
	if err := m.turn(ctx, ref, hypervisor.PowerOn, hypervisor.PowerOn); err != nil {
		return err
	}
	for range 2 { // gone is success
		left, err := s.DeleteSnapshot(ctx, ref, "on")
		if err != nil {
			return fmt.Errorf("delete snapshot: %w", err)
		}
		if err := named(left, "off"); err != nil {
			return err
		}
	}
	if err := m.back(ctx, s, ref, "off", hypervisor.PowerOff); err != nil {
		return err
	}
	if _, err := s.DeleteSnapshot(ctx, ref, "off"); err != nil {
		return fmt.Errorf("delete snapshot: %w", err)
	}
	return m.snapshots(ctx, s, ref)
}

func (m *machines) snapshotMemory(ctx context.Context) error {
	s, err := m.snapshotter(ctx)
	if err != nil {
		return err
	}
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	ref := req.Ref
	_, err = s.CreateSnapshot(ctx, ref, "mem", true)
	if errors.Is(err, fault.Unsupported) {
		return fmt.Errorf("%w: a hypervisor that keeps memory", ErrSkipped)
	}
	if err := wantClass("memory of a vm that is off", err, fault.Precondition); err != nil {
		return err
	}
	if err := errors.Join(m.snapshots(ctx, s, ref), m.turn(ctx, ref, hypervisor.PowerOn, hypervisor.PowerOn)); err != nil {
		return err
	}
	if err := m.kept(ctx, s, ref, "mem", true); err != nil {
		return err
	}
	for _, power := range []hypervisor.Power{hypervisor.PowerOn, hypervisor.PowerOff} {
		if err := errors.Join(m.turn(ctx, ref, power, power), m.back(ctx, s, ref, "mem", hypervisor.PowerOn)); err != nil {
			return err
		}
	}
	left, err := s.DeleteSnapshot(ctx, ref, "mem")
	if err != nil {
		return fmt.Errorf("delete snapshot: %w", err)
	}
	return named(left)
}

func (m *machines) snapshotNames(ctx context.Context) error {
	s, err := m.snapshotter(ctx)
	if err != nil {
		return err
	}
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"", "a", "1st", "a b", "../up", "current", strings.Repeat("a", 41)} {
		_, err := s.CreateSnapshot(ctx, req.Ref, name, false)
		if err := wantClass(fmt.Sprintf("create snapshot %q", name), err, fault.Invalid); err != nil {
			return err
		}
	}
	if err := m.snapshots(ctx, s, req.Ref); err != nil {
		return err
	}
	_, err = s.RollbackSnapshot(ctx, req.Ref, "never-made")
	if err := wantClass("roll back to what is not there", err, fault.NotFound); err != nil {
		return err
	}
	if err := m.DestroyVM(ctx, req.Ref); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	_, err = s.ListSnapshots(ctx, req.Ref)
	return wantClass("snapshots of a vm that is gone", err, fault.NotFound)
}

func (m *machines) snapshotOwner(ctx context.Context) error {
	s, err := m.snapshotter(ctx)
	if err != nil {
		return err
	}
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if err := m.kept(ctx, s, ref, "mine", false); err != nil {
		return err
	}
	for _, owner := range []string{"", ref.Owner + "x"} {
		stranger := ref
		stranger.Owner = owner
		err := m.opts.Effects.unchanged(ctx, "a stranger's call", func() error {
			_, create := s.CreateSnapshot(ctx, stranger, "theirs", false)
			_, rollBack := s.RollbackSnapshot(ctx, stranger, "mine")
			_, drop := s.DeleteSnapshot(ctx, stranger, "mine")
			return errors.Join(
				wantClass(fmt.Sprintf("create snapshot by %q", owner), create, fault.Precondition),
				wantClass(fmt.Sprintf("rollback by %q", owner), rollBack, fault.Precondition),
				wantClass(fmt.Sprintf("delete snapshot by %q", owner), drop, fault.Precondition),
			)
		})
		if err != nil {
			return err
		}
	}
	vm, err := m.GetVM(ctx, ref)
	if err != nil || vm.Power != hypervisor.PowerOn {
		return saw("after strangers' calls the vm is %+v (%v)", vm, err).want("it on")
	}
	return m.snapshots(ctx, s, ref, "mine")
}

func (m *machines) snapshotVolume(ctx context.Context) error {
	s, err := m.snapshotter(ctx)
	if err != nil {
		return err
	}
	keeper, volume, err := m.volume(ctx)
	if err != nil {
		return err
	}
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if err := m.kept(ctx, s, ref, "without", false); err != nil {
		return err
	}
	_, err = s.CreateSnapshot(ctx, ref, "memory", true)
	memory := err == nil
	if err != nil && !errors.Is(err, fault.Unsupported) {
		return fmt.Errorf("create snapshot with memory: %w", err)
	}
	if _, err := keeper.AttachVolume(ctx, ref, volume.Ref, "work"); err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	if memory {
		_, create := s.CreateSnapshot(ctx, ref, "memory-too", true)
		_, rollBack := s.RollbackSnapshot(ctx, ref, "memory")
		err := errors.Join(
			wantClass("memory of a vm that has a volume", create, fault.Precondition),
			wantClass("back to memory that knows of no volume", rollBack, fault.Precondition),
		)
		if err != nil {
			return err
		}
	}
	for what, call := range map[string]func() error{
		"snapshot of a vm that has a volume": func() error { _, err := s.CreateSnapshot(ctx, ref, "with", false); return err },
		"rollback of a vm that has a volume": func() error { _, err := s.RollbackSnapshot(ctx, ref, "without"); return err },
	} {
		if err := call(); err != nil && !errors.Is(err, fault.Precondition) {
			return wantClass(what, err, fault.Precondition)
		}
		got, err := keeper.GetVolume(ctx, volume.Ref)
		if err != nil || got.AttachedVMID != ref.VMID || got.Serial != "work" {
			return saw("after a %s the volume is %+v (%v)", what, got, err).want("it attached as it was")
		}
	}
	return nil
}
