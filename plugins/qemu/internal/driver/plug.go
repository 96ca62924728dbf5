package driver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/volume"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	unplugTimeout = 20 * time.Second
	unplugPoll    = 20 * time.Millisecond
)

// plug is the volume as QEMU is told of it.
func plug(s *volume.Store, v *volume.Volume) machine.Volume {
	out := machine.Volume{ID: "vol-" + v.ID, Path: s.Disk(v.ID)}
	if v.Attached != nil {
		out.Serial = v.Attached.Serial
	}
	return out
}

// handOver makes the disks of a VM's volumes its own, and gives them as QEMU is
// told of them. It is called before each start.
func (d *Driver) handOver(v *record.VM) ([]machine.Volume, error) {
	all, err := d.volumes.Of(v.VMID, v.Owner)
	if err != nil {
		return nil, err
	}
	var out []machine.Volume
	for _, vol := range all {
		if err := d.give(v, vol); err != nil {
			return nil, err
		}
		out = append(out, plug(d.volumes, vol))
	}
	return out, nil
}

func (d *Driver) give(v *record.VM, vol *volume.Volume) error {
	if err := d.sound(vol); err != nil {
		return err
	}
	return disk.Give(d.volumes.Disk(vol.ID), v.UID)
}

// plugIn shows a volume to a guest that is on. What is done already is left.
func (d *Driver) plugIn(ctx context.Context, v *record.VM, vol *volume.Volume) error {
	p := plug(d.volumes, vol)
	plugged, err := d.plugged(ctx, v.VMID, p)
	if err != nil || plugged {
		return err
	}
	if err := d.give(v, vol); err != nil {
		return err
	}
	d.crash("volume-given")
	return d.ask(ctx, v.VMID, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		opened, err := nodes(ctx, c)
		if err != nil {
			return err
		}
		if !slices.Contains(opened, p.ID) {
			if err := c.Execute(ctx, "blockdev-add", p.Node(), nil); err != nil {
				return fault.New(classOf(err.Error()), "open volume %s: %w", vol.ID, err)
			}
			d.crash("volume-opened")
		}
		if err := c.Execute(ctx, "device_add", p.Device(), nil); err != nil {
			return fault.New(fault.Internal, "plug in volume %s: %w", vol.ID, err)
		}
		return nil
	})
}

// plugged reports whether the guest has the disk.
func (d *Driver) plugged(ctx context.Context, vmid uint32, p machine.Volume) (is bool, err error) {
	err = d.ask(ctx, vmid, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		found, err := devices(ctx, c)
		is = slices.Contains(found, p.ID)
		return err
	})
	return is, err
}

// unplug takes the disk from the guest and closes its file. What is done already
// is left.
func (d *Driver) unplug(ctx context.Context, vmid uint32, p machine.Volume) error {
	return d.ask(ctx, vmid, unplugTimeout, func(ctx context.Context, c *qmp.Client) error {
		found, err := devices(ctx, c)
		if err != nil {
			return err
		}
		if slices.Contains(found, p.ID) {
			if err := c.Execute(ctx, "device_del", map[string]any{"id": p.ID}, nil); err != nil {
				return fault.New(fault.Internal, "unplug disk %s: %w", p.Serial, err)
			}
		}
		if err := awaitUnplugged(ctx, c, p); err != nil {
			return err
		}
		d.crash("volume-unplugged")
		return closeNode(ctx, c, p)
	})
}

// closeNode closes the file; what the guest has written is on disk when it
// returns. QEMU lets go of a device a moment after it has gone from its list.
func closeNode(ctx context.Context, c *qmp.Client, p machine.Volume) error {
	for {
		opened, err := nodes(ctx, c)
		if err != nil || !slices.Contains(opened, p.ID) {
			return err
		}
		err = c.Execute(ctx, "blockdev-del", map[string]any{"node-name": p.ID}, nil)
		var refused *qmp.CommandError
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "close disk %s: %w", p.Serial, errors.Join(ctx.Err(), err))
		case <-time.After(unplugPoll):
		}
	}
}

// awaitUnplugged asks again rather than wait for DEVICE_DELETED, which may have
// been told to a client that was killed.
func awaitUnplugged(ctx context.Context, c *qmp.Client, p machine.Volume) error {
	for {
		found, err := devices(ctx, c)
		if err != nil || !slices.Contains(found, p.ID) {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "the guest does not let go of disk %s: %w", p.Serial, ctx.Err())
		case <-time.After(unplugPoll):
		}
	}
}

// devices lists what has an id.
func devices(ctx context.Context, c *qmp.Client) ([]string, error) {
	var found []struct {
		Name string `json:"name"`
	}
	err := c.Execute(ctx, "qom-list", map[string]any{"path": "/machine/peripheral"}, &found)
	var out []string
	for _, f := range found {
		out = append(out, f.Name)
	}
	return out, err
}

func nodes(ctx context.Context, c *qmp.Client) ([]string, error) {
	var found []struct {
		Name string `json:"node-name"`
	}
	err := c.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &found)
	var out []string
	for _, f := range found {
		out = append(out, f.Name)
	}
	return out, err
}
