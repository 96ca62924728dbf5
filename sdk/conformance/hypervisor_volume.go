package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	// volumeBytes is small and no round number of extents.
	volumeBytes = 5 << 20
	detachWait  = 3 * time.Second
)

var volumeRules = []ruled[*machines]{
	changes("hypervisor.volume", 2, "makes, reads and deletes a volume, each twice",
		"An owner has one volume: the one that is there is the answer, whatever its size.", (*machines).volumeLife),
	changes("hypervisor.volume-owner", 2, "attaches, detaches, deletes and snapshots a volume under other owner marks",
		"PRECONDITION unless both stored owners equal those expected, while another VM has the volume, or when it is attached under another serial.",
		(*machines).volumeOwner),
	changes("hypervisor.volume-attach", 2, "attaches a volume to a VM that is off, starts and stops it, and detaches it",
		"The disk appears in the guest under this serial, so nothing is guessed: soon in a VM that is on, and each time it is started again, until it is detached.",
		(*machines).volumeAttach),
	changes("hypervisor.volume-hot", 2, "attaches a volume to a VM that is on, and detaches it",
		"PRECONDITION while the VM runs, unless the guest has unmounted it: so also when the guest does not answer, and when it is paused.",
		(*machines).volumeHot),
	changes("hypervisor.volume-outlives", 2, "destroys a VM that has a volume, and ends and kills the plugin's process",
		"Frees the seed and the VM's own disks, never an attached volume.", (*machines).volumeOutlives),
	changes("hypervisor.volume-snapshot", 2, "makes, goes back to and deletes snapshots of a volume, each twice",
		"PRECONDITION while the volume is attached to a VM that is not off: only a disk at rest is whole.", (*machines).volumeSnapshot),
	changes("hypervisor.volume-clone", 2, "copies a volume and its snapshot, and deletes the source",
		"A blank disk, or with from_volume a copy that depends on nothing: its source may be changed and deleted.", (*machines).volumeClone),
}

// keeper is the driver, where it keeps volumes.
func (m *machines) keeper(ctx context.Context) (hypervisor.VolumeKeeper, error) {
	k, ok := m.Driver.(hypervisor.VolumeKeeper)
	if ok {
		_, err := k.GetVolume(ctx, hypervisor.VolumeRef{ID: "there-is-none"})
		ok = !errors.Is(err, fault.Unsupported)
	}
	if !ok {
		return nil, fmt.Errorf("%w: a hypervisor that keeps volumes", ErrSkipped)
	}
	return k, nil
}

// volumeRequest asks for one that does not exist. It is deleted after the check.
func (m *machines) volumeRequest() hypervisor.VolumeRequest {
	return hypervisor.VolumeRequest{
		RequestID: "conformance", Owner: fmt.Sprintf("%sws_%d", m.prefix(), m.nextVolume.Add(1)), SizeBytes: volumeBytes,
	}
}

// madeVolume keeps it for the clean-up.
func (m *machines) madeVolume(v hypervisor.Volume) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.volumes = append(m.volumes, v.Ref)
}

// volume makes one.
func (m *machines) volume(ctx context.Context) (hypervisor.VolumeKeeper, hypervisor.Volume, error) {
	k, err := m.keeper(ctx)
	if err != nil {
		return nil, hypervisor.Volume{}, err
	}
	v, err := k.CreateVolume(ctx, m.volumeRequest())
	if err != nil {
		return k, v, fmt.Errorf("create volume: %w", err)
	}
	m.madeVolume(v)
	return k, v, nil
}

// holds checks who has a volume, by the answer of a call and by what is read
// back.
func (m *machines) holds(ctx context.Context, k hypervisor.VolumeKeeper, answer hypervisor.Volume, vmid uint32, serial string) error {
	got, err := k.GetVolume(ctx, answer.Ref)
	if err != nil {
		return fmt.Errorf("get volume: %w", err)
	}
	for _, v := range []hypervisor.Volume{answer, got} {
		if v.AttachedVMID != vmid || v.Serial != serial || v.Ref.ID != answer.Ref.ID || v.Ref.Owner != answer.Ref.Owner {
			return saw("the volume is %+v", v).want("vm %d to have it as %q", vmid, serial)
		}
	}
	return nil
}

func (m *machines) volumeLife(ctx context.Context) error {
	k, err := m.keeper(ctx)
	if err != nil {
		return err
	}
	req := m.volumeRequest()
	first, err := k.CreateVolume(ctx, req)
	if err != nil {
		return fmt.Errorf("create volume: %w", err)
	}
	m.madeVolume(first)
	if first.Ref.ID == "" || first.Ref.Owner != req.Owner || first.SizeBytes < req.SizeBytes || first.AttachedVMID != 0 || len(first.Snapshots) > 0 {
		return saw("a fresh volume is %+v", first).want("an id, owner %q, %d bytes or more, and nothing else", req.Owner, req.SizeBytes)
	}
	larger := req
	larger.SizeBytes *= 2
	for _, again := range []hypervisor.VolumeRequest{req, larger} {
		err := m.opts.Effects.unchanged(ctx, "a repeated create volume", func() error {
			v, err := k.CreateVolume(ctx, again)
			if err != nil {
				return fmt.Errorf("repeat create volume: %w", err)
			}
			if v.Ref.ID != first.Ref.ID || v.SizeBytes != first.SizeBytes {
				return saw("a repeated create volume answers %+v", v).want("the one that is there: %+v", first)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := m.holds(ctx, k, first, 0, ""); err != nil {
		return err
	}
	sizeless, elsewhere := m.volumeRequest(), m.volumeRequest()
	sizeless.SizeBytes, elsewhere.Pool = 0, "there-is-no-such-pool"
	for what, bad := range map[string]hypervisor.VolumeRequest{"create volume of no size": sizeless, "create volume in an unknown pool": elsewhere} {
		_, err := k.CreateVolume(ctx, bad)
		if err := wantClass(what, err, fault.Invalid); err != nil {
			return err
		}
	}
	for range 2 { // gone is success
		if err := k.DeleteVolume(ctx, first.Ref); err != nil {
			return fmt.Errorf("delete volume: %w", err)
		}
	}
	_, err = k.GetVolume(ctx, first.Ref)
	return wantClass("get of a volume that is gone", err, fault.NotFound)
}

func (m *machines) volumeOwner(ctx context.Context) error {
	k, v, err := m.volume(ctx)
	if err != nil {
		return err
	}
	mine, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	other, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	attached, err := k.AttachVolume(ctx, mine.Ref, v.Ref, "work")
	if err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	strange, nobodys, strangeVM := v.Ref, v.Ref, mine.Ref
	strange.Owner, nobodys.Owner, strangeVM.Owner = v.Ref.Owner+"x", "", mine.Ref.Owner+"x"
	err = m.opts.Effects.unchanged(ctx, "a refused call", func() error {
		_, another := k.AttachVolume(ctx, other.Ref, v.Ref, "work")
		_, renamed := k.AttachVolume(ctx, mine.Ref, v.Ref, "other")
		_, strangers := k.AttachVolume(ctx, mine.Ref, strange, "work")
		_, toStranger := k.AttachVolume(ctx, strangeVM, v.Ref, "work")
		_, from := k.DetachVolume(ctx, other.Ref, v.Ref)
		_, by := k.DetachVolume(ctx, mine.Ref, strange)
		return errors.Join(
			wantClass("attach what another vm has", another, fault.Precondition),
			wantClass("attach under another serial", renamed, fault.Precondition),
			wantClass("attach a stranger's volume", strangers, fault.Precondition),
			wantClass("attach to a stranger's vm", toStranger, fault.Precondition),
			wantClass("detach from a vm that does not have it", from, fault.Precondition),
			wantClass("detach a stranger's volume", by, fault.Precondition),
			wantClass("delete what a vm has", k.DeleteVolume(ctx, v.Ref), fault.Precondition),
			wantClass("delete a stranger's volume", k.DeleteVolume(ctx, strange), fault.Precondition),
			wantClass("delete a volume by nobody", k.DeleteVolume(ctx, nobodys), fault.Precondition),
		)
	})
	if err != nil {
		return err
	}
	return m.holds(ctx, k, attached, mine.Ref.VMID, "work")
}

func (m *machines) volumeAttach(ctx context.Context) error {
	k, v, err := m.volume(ctx)
	if err != nil {
		return err
	}
	_, second, err := m.volume(ctx)
	if err != nil {
		return err
	}
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	for _, serial := range []string{"", "a,b", "a b", "123456789012345678901"} {
		_, err := k.AttachVolume(ctx, req.Ref, v.Ref, serial)
		if err := wantClass(fmt.Sprintf("attach under serial %q", serial), err, fault.Invalid); err != nil {
			return err
		}
	}
	if err := m.attachTwice(ctx, k, req.Ref, v); err != nil {
		return err
	}
	_, err = k.AttachVolume(ctx, req.Ref, second.Ref, "work")
	if err := wantClass("attach under a serial that is in use", err, fault.Exists); err != nil {
		return err
	}
	for _, power := range []hypervisor.Power{hypervisor.PowerOn, hypervisor.PowerOff, hypervisor.PowerOn, hypervisor.PowerOff} {
		if err := m.turn(ctx, req.Ref, power, power); err != nil {
			return err
		}
		if got, err := k.GetVolume(ctx, v.Ref); err != nil || got.AttachedVMID != req.Ref.VMID {
			return saw("with the vm %s the volume is %+v (%v)", power, got, err).want("it attached")
		}
	}
	return m.detachTwice(ctx, k, req.Ref, v)
}

func (m *machines) attachTwice(ctx context.Context, k hypervisor.VolumeKeeper, vm hypervisor.Ref, v hypervisor.Volume) error {
	answer, err := k.AttachVolume(ctx, vm, v.Ref, "work")
	if err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	if err := m.holds(ctx, k, answer, vm.VMID, "work"); err != nil {
		return err
	}
	return m.opts.Effects.unchanged(ctx, "a repeated attach", func() error {
		if _, err := k.AttachVolume(ctx, vm, v.Ref, "work"); err != nil {
			return fmt.Errorf("repeat attach: %w", err)
		}
		return nil
	})
}

func (m *machines) detachTwice(ctx context.Context, k hypervisor.VolumeKeeper, vm hypervisor.Ref, v hypervisor.Volume) error {
	for range 2 { // detached already is success
		answer, err := k.DetachVolume(ctx, vm, v.Ref)
		if err != nil {
			return fmt.Errorf("detach volume: %w", err)
		}
		if err := m.holds(ctx, k, answer, 0, ""); err != nil {
			return err
		}
	}
	return nil
}

func (m *machines) volumeHot(ctx context.Context) error {
	k, v, err := m.volume(ctx)
	if err != nil {
		return err
	}
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if err := m.attachTwice(ctx, k, ref, v); err != nil {
		return err
	}
	_, err = m.SetPower(ctx, ref, hypervisor.PowerPaused, 0)
	if err != nil && !errors.Is(err, fault.Unsupported) {
		return fmt.Errorf("pause: %w", err)
	}
	if err == nil {
		_, err := k.DetachVolume(ctx, ref, v.Ref)
		if err := wantClass("detach from a paused vm", err, fault.Precondition); err != nil {
			return err
		}
		if err := m.turn(ctx, ref, hypervisor.PowerOn, hypervisor.PowerOn); err != nil {
			return err
		}
	}
	// This guest may answer or not; one that does not is not waited for here.
	short, cancel := context.WithTimeout(ctx, detachWait)
	defer cancel()
	if _, err := k.DetachVolume(short, ref, v.Ref); err != nil {
		if err := wantClass("detach from a running vm", err, fault.Precondition, fault.Timeout); err != nil {
			return err
		}
		if got, err := k.GetVolume(ctx, v.Ref); err != nil || got.AttachedVMID != ref.VMID {
			return saw("after a refused detach the volume is %+v (%v)", got, err).want("it attached")
		}
	}
	if err := m.turn(ctx, ref, hypervisor.PowerOff, hypervisor.PowerOff); err != nil {
		return err
	}
	return m.detachTwice(ctx, k, ref, v)
}

func (m *machines) volumeOutlives(ctx context.Context) error {
	k, v, err := m.volume(ctx)
	if err != nil {
		return err
	}
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if _, err := k.AttachVolume(ctx, ref, v.Ref, "work"); err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	want := ref.VMID
	err = m.process.successors(ctx, func(next hypervisor.Driver) error {
		m.Driver = next
		if k, err = m.keeper(ctx); err != nil {
			return err
		}
		got, err := k.GetVolume(ctx, v.Ref)
		if err != nil || got.AttachedVMID != want || got.SizeBytes != v.SizeBytes {
			return saw("the next process sees %+v (%v)", got, err).want("vm %d to have it", want)
		}
		want = 0
		return m.DestroyVM(ctx, ref)
	})
	if err != nil {
		return err
	}
	return m.holds(ctx, k, v, 0, "")
}
