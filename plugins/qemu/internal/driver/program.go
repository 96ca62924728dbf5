package driver

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
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

// programs gives what runs as the user. None means none for certain.
func (d *Driver) programs(uid uint32) ([]procfs.Identity, error) {
	found, err := d.find(uid)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "look for programs of uid %d: %w", uid, err)
	}
	return found, nil
}

// noted is the program of the VM's last start, nil when there was none since
// the host came up. Its PID is 0 when the start was cut short before it was
// known.
func (d *Driver) noted(v *record.VM) *procfs.Identity {
	if v.Run == nil || v.Run.BootID != d.bootID {
		return nil
	}
	return &procfs.Identity{PID: v.Run.PID, StartTicks: v.Run.StartTicks, UID: v.UID}
}

// program gives the VM's running QEMU, nil when there is none for certain. A
// guest that took its QEMU over can change its arguments, end its first thread
// or leave it, but not its user: whatever runs as that is taken for the VM.
func (d *Driver) program(v *record.VM) (*procfs.Identity, error) {
	id := d.noted(v)
	if id == nil {
		return nil, nil
	}
	if id.PID != 0 {
		err := procfs.Check(*id)
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, procfs.ErrGone) {
			return nil, fault.New(fault.Unavailable, "look at pid %d of vm %d: %w", id.PID, v.VMID, err)
		}
	}
	found, err := d.programs(v.UID)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// tenant says which programs of a user are the VM's.
type tenant struct {
	vmid  uint32 // 0 for what makes memory templates
	uid   uint32
	mark  string
	noted *procfs.Identity
	// alone: a program without any mark is the VM's too, because one of the
	// VM's may have been running.
	alone bool
	// spare: it is none of a VM yet.
	spare bool
	// shares: what is not known to be the VM's is known to be another's.
	shares bool
}

func (d *Driver) tenant(v *record.VM) tenant {
	noted := d.noted(v)
	return tenant{
		vmid: v.VMID, uid: v.UID, mark: v.Mark(), noted: noted,
		alone: noted != nil || v.State == record.StateCreating,
	}
}

// settleTime is enough for what has its user already to show its own arguments: from
// fork to the end of exec a program shows those of its parent, or none.
const settleTime = 2 * time.Second

// owns is procfs.ErrGone for a program that has ended meanwhile.
func (t tenant) owns(ctx context.Context, id procfs.Identity) (bool, error) {
	if t.noted != nil && *t.noted == id {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		args, err := procfs.Args(id.PID)
		if err != nil {
			return false, err
		}
		if at := slices.Index(args, machine.MarkFlag); at >= 0 && at+1 < len(args) {
			return args[at+1] == t.mark, nil
		}
		if t.alone {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, procfs.Check(id)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends the VM's programs, noted or not, and returns when nothing runs as
// its user any more. A program that may be another VM's, as where two instances
// share the number, is left alone and told.
func (d *Driver) kill(ctx context.Context, t tenant) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	for {
		found, err := d.programs(t.uid)
		if err != nil || len(found) == 0 {
			return err
		}
		var strangers []int
		for _, id := range found {
			ours, err := t.owns(ctx, id)
			if err == nil && ours {
				err = killOne(ctx, id)
			}
			switch {
			case errors.Is(err, procfs.ErrGone):
			case err != nil:
				return fault.New(fault.Unavailable, "end pid %d: %w", id.PID, err).
					WithHint("the program may hang in the kernel: look at its state and the kernel's log")
			case !ours:
				strangers = append(strangers, id.PID)
			}
		}
		if len(strangers) == len(found) {
			if t.shares {
				return nil
			}
			return t.shared(strangers[0])
		}
		if err := ctx.Err(); err != nil {
			return fault.New(fault.Unavailable, "end programs of uid %d: %w", t.uid, err)
		}
	}
}

func (t tenant) shared(pid int) error {
	if t.spare {
		return fault.New(fault.Unavailable, "pid %d runs as user %d of a spare guest and is not known to be that", pid, t.uid).
			WithHolder("pid " + strconv.Itoa(pid)).WithHint("look what it is and end it")
	}
	if t.vmid == 0 {
		return fault.New(fault.Unavailable, "pid %d runs as user %d, as which memory templates are made, and is not known to make one", pid, t.uid).
			WithHolder("pid " + strconv.Itoa(pid)).WithHint("look what it is and end it")
	}
	return fault.New(fault.Unavailable, "pid %d runs as user %d of vm %d and is not known to be the vm's", pid, t.uid, t.vmid).
		WithResource("vm %d", t.vmid).WithHolder("pid " + strconv.Itoa(pid)).
		WithHint("look what it is: end it, or give the instance that it belongs to a uid_base of its own")
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
	if err := d.store.ForgetFormer(v.VMID); err != nil {
		return err
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
