package driver

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

func bootID() (string, error) {
	id, err := procfs.BootID()
	if err != nil {
		return "", fault.New(fault.Internal, "read boot id: %w", err)
	}
	return id, nil
}

// program gives the VM's running QEMU, nil when there is none for certain. A
// start that was cut short before the pid was written is found by its mark.
func (d *Driver) program(v *record.VM) (*procfs.Identity, error) {
	if v.Run == nil || v.Run.BootID != d.bootID {
		return nil, nil
	}
	id := procfs.Identity{PID: v.Run.PID, StartTicks: v.Run.StartTicks, UID: v.UID, Mark: v.Mark()}
	if id.PID != 0 {
		err := procfs.Check(id)
		if err == nil {
			return &id, nil
		}
		if !errors.Is(err, procfs.ErrGone) {
			return nil, fault.New(fault.Unavailable, "look at pid %d of vm %d: %w", id.PID, v.VMID, err)
		}
		if v.Run.State == record.RunRunning {
			return nil, nil
		}
	}
	found, err := procfs.Find(v.UID, v.Mark())
	if err != nil {
		return nil, fault.New(fault.Unavailable, "look for the program of vm %d: %w", v.VMID, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// kill ends every program with the VM's user and mark, recorded or not, and
// returns when they have ended.
func (d *Driver) kill(ctx context.Context, uid uint32, mark string) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	found, err := procfs.Find(uid, mark)
	if err != nil {
		return fault.New(fault.Unavailable, "look for programs of uid %d: %w", uid, err)
	}
	for _, id := range found {
		if err := killOne(ctx, id); err != nil {
			return fault.New(fault.Unavailable, "end pid %d: %w", id.PID, err).
				WithHint("the program may hang in the kernel: look at its state and the kernel's log")
		}
	}
	return nil
}

func killOne(ctx context.Context, id procfs.Identity) error {
	h, err := procfs.Open(id)
	if errors.Is(err, procfs.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Kill(); err != nil {
		return err
	}
	return h.Wait(ctx)
}

// ended waits at most the given time for the program's end.
func ended(ctx context.Context, id procfs.Identity, wait time.Duration) (bool, error) {
	h, err := procfs.Open(id)
	if errors.Is(err, procfs.ErrGone) {
		return true, nil
	}
	if err != nil {
		return false, fault.New(fault.Unavailable, "hold pid %d: %w", id.PID, err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return h.Wait(ctx) == nil, nil
}

// clearRun notes that the VM is off and removes its sockets.
func (d *Driver) clearRun(v *record.VM) error {
	for _, name := range []string{monitorName, channelName} {
		if err := os.Remove(d.store.Path(v.VMID, name)); err != nil && !os.IsNotExist(err) {
			return record.Classify("remove socket", err)
		}
	}
	if v.Run == nil {
		return nil
	}
	v.Run = nil
	err := d.store.Save(v)
	if errors.Is(err, fault.Exhausted) {
		// The old record names a program that has ended, which reads the same.
		d.log.Warn("record was not updated", "vmid", v.VMID, "err", err)
		return nil
	}
	return err
}
