package driver

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Console implements hypervisor.ConsoleReader. Of a VM that is off it gives
// what was read while it ran.
func (d *Driver) Console(ctx context.Context, ref hypervisor.Ref) ([]byte, error) {
	unlock, err := d.store.Lock(ctx, ref.VMID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.store.Load(ref.VMID)
	if err != nil {
		return nil, err
	}
	if ref.Owner != "" && ref.Owner != v.Owner {
		return nil, fault.New(fault.Precondition, "vm %d belongs to somebody else", ref.VMID).WithHolder(v.Owner)
	}
	id, err := d.program(v)
	if err != nil {
		return nil, err
	}
	if id == nil {
		return d.savedConsole(ref.VMID)
	}
	return d.drainConsole(ctx, ref.VMID)
}

// drainConsole moves what is in QEMU's ring behind what was saved before, and
// gives the newest of both. Reading empties the ring, hence the file. Caller
// holds the VM's lock.
func (d *Driver) drainConsole(ctx context.Context, vmid uint32) ([]byte, error) {
	saved, err := d.savedConsole(vmid)
	if err != nil {
		return nil, err
	}
	var text string
	err = d.ask(ctx, vmid, d.monitorWait, func(ctx context.Context, c *qmp.Client) error {
		return c.Execute(ctx, "ringbuf-read", map[string]any{
			"device": machine.ConsoleDevice, "size": machine.ConsoleBytes, "format": "base64",
		}, &text)
	})
	if err != nil {
		return nil, err
	}
	fresh, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fault.New(fault.Internal, "decode console of vm %d: %w", vmid, err)
	}
	if len(fresh) == 0 {
		return saved, nil
	}
	all := append(saved, fresh...)
	all = all[max(0, len(all)-machine.ConsoleBytes):]
	err = record.WriteFile(d.store.Path(vmid, consoleName), all, 0o600, os.Getuid())
	if err != nil {
		plugin.Log(ctx, d.log).Warn("console was not saved", "vmid", vmid, "err", err)
	}
	return all, nil
}

func (d *Driver) savedConsole(vmid uint32) ([]byte, error) {
	b, err := os.ReadFile(d.store.Path(vmid, consoleName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, record.Classify("read console", err)
	}
	return b, nil
}
