package world

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// maxConsole is how much of a console is given back, in bytes.
const maxConsole = 64 << 10

// running holds the lock and checks that the machine still runs since the given
// power-on, so that a guest that comes late writes nothing.
func (w *World) running(ctx context.Context, vmid uint32, boot uint64) (release func(), err error) {
	release, err = w.settle(ctx)
	if err != nil {
		return nil, err
	}
	var vm VM
	found, err := w.readJSON(vmFile(vmid), &vm)
	if err == nil && (!found || vm.Boot != boot || vm.Power != hypervisor.PowerOn) {
		err = errGone(vmid)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// Stamp is when a machine last changed. It is coarse: a change within the same
// few milliseconds may have the same stamp.
func (w *World) Stamp() (time.Time, error) {
	info, err := os.Stat(filepath.Join(w.dir, vms))
	if err != nil {
		return time.Time{}, fault.New(fault.Unavailable, "read the world: %w", err)
	}
	return info.ModTime(), nil
}

// LoadGuest reads what the guest has on its disk into v, which stays as it is
// when the disk is blank.
func (w *World) LoadGuest(vmid uint32, v any) error {
	_, err := w.readJSON(guestFile(vmid), v)
	return err
}

// SaveGuest writes the guest's disk. It is not an effect.
func (w *World) SaveGuest(ctx context.Context, vmid uint32, boot uint64, v any) error {
	release, err := w.running(ctx, vmid, boot)
	if err != nil {
		return err
	}
	defer release()
	content, err := json.Marshal(v)
	if err != nil {
		return fault.New(fault.Internal, "encode the guest's disk: %w", err)
	}
	return w.write(guestFile(vmid), content)
}

// Print adds a line to the guest's console.
func (w *World) Print(ctx context.Context, vmid uint32, boot uint64, line string) error {
	release, err := w.running(ctx, vmid, boot)
	if err != nil {
		return err
	}
	defer release()
	f, err := os.OpenFile(filepath.Join(w.dir, consoleFile(vmid)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fault.New(fault.Unavailable, "write the console: %w", err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, line+"\n"); err != nil {
		return fault.New(fault.Unavailable, "write the console: %w", err)
	}
	return nil
}

// Console gives the newest 64 KiB of what the guest printed.
func (w *World) Console(vmid uint32) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(w.dir, consoleFile(vmid)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unavailable, "read the console: %w", err)
	}
	return content[max(0, len(content)-maxConsole):], nil
}

// Occupy makes the caller the only process that plays the guest of a machine
// since the given power-on. It is fault.Locked while another one does.
func (w *World) Occupy(ctx context.Context, vmid uint32, boot uint64) (leave func(), err error) {
	release, err := w.running(ctx, vmid, boot)
	if err != nil {
		return nil, err
	}
	defer release()
	f, err := os.OpenFile(filepath.Join(w.dir, runFile(vmid)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "open the guest's lock: %w", err)
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		_ = f.Close()
		return nil, fault.New(fault.Locked, "vm %d is played by another process", vmid)
	}
	return func() { _ = f.Close() }, nil
}
