package driver

import (
	"context"
	"errors"

	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// guest is what is asked of agent-runner; tests put another in its place.
type guest interface {
	State(ctx context.Context) (channel.State, error)
	AwaitReady(ctx context.Context) error
	Rehearse(ctx context.Context) error
	Assume(ctx context.Context, id channel.Identity) (channel.Assumed, error)
	Go(ctx context.Context) error
	Close() error
}

// name lets a guest that was loaded run until it has its identity, and gives the way
// to it. The guest does nothing with the identity before letGo.
func (d *Driver) name(ctx context.Context, v *record.VM) (guest, error) {
	id, err := d.identity(v)
	if err != nil {
		return nil, err
	}
	// One that reboots would come up by its seed disk, and use it.
	if err := d.run(ctx, v.VMID, "shutdown"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	h, err := d.meet(ctx, v.VMID)
	if err != nil {
		return nil, err
	}
	got, err := h.Assume(ctx, id)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	for _, duty := range got.Duties {
		plugin.Log(ctx, d.log).Debug("guest assumed its identity", "vmid", v.VMID, "step", duty.Name, "took", duty.Took)
	}
	return h, nil
}

// goOn finishes a start that was cut off once its guest had its identity.
func (d *Driver) goOn(ctx context.Context, v *record.VM) error {
	h, err := d.meet(ctx, v.VMID)
	if err != nil {
		return err
	}
	defer h.Close()
	return d.letGo(ctx, v, h)
}

// letGo has a guest use its identity: what is good for one guest only may be spent
// from here on. So nothing begins anew, and whatever fails leaves the guest as it is
// for the next call, which does the same again.
func (d *Driver) letGo(ctx context.Context, v *record.VM, h guest) error {
	if err := d.run(ctx, v.VMID, "reset"); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	if err := h.Go(short); err != nil {
		return err
	}
	d.crash("gone")
	return d.complete(ctx, v)
}

// run has QEMU execute the guest, and do onReboot when that reboots.
func (d *Driver) run(ctx context.Context, vmid uint32, onReboot string) error {
	return d.ask(ctx, vmid, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		return runWith(ctx, c, onReboot)
	})
}

func runWith(ctx context.Context, c *qmp.Client, onReboot string) error {
	if err := c.Execute(ctx, "set-action", map[string]any{"reboot": onReboot}, nil); err != nil {
		return err
	}
	return c.Execute(ctx, "cont", nil, nil)
}

func (d *Driver) meet(ctx context.Context, vmid uint32) (guest, error) {
	ctx, cancel := context.WithTimeout(ctx, d.monitorWait)
	defer cancel()
	conn, err := qmp.Connect(ctx, d.store.Dir(vmid), channelName)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "connect to the guest's channel: %w", err)
	}
	return d.greet(conn), nil
}
