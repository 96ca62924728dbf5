package driver

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

func formatVMID(vmid uint32) string { return strconv.FormatUint(uint64(vmid), 10) }

// SetPower implements hypervisor.Driver. Paused asks for a VM that is on.
func (d *Driver) SetPower(
	ctx context.Context, ref hypervisor.Ref, target hypervisor.Power, grace time.Duration,
) (hypervisor.VM, error) {
	var none hypervisor.VM
	change, ok := map[hypervisor.Power]func(context.Context, *record.VM, time.Duration) error{
		hypervisor.PowerOn:       d.powerOn,
		hypervisor.PowerOff:      d.powerOff,
		hypervisor.PowerShutdown: d.shutdown,
		hypervisor.PowerPaused:   d.pause,
	}[target]
	if !ok {
		return none, fault.New(fault.Unsupported, "power state %q is not supported", target)
	}
	unlock, err := d.store.Lock(ctx, ref.VMID)
	if err != nil {
		return none, err
	}
	defer unlock()
	v, err := d.owned(ref)
	if err != nil {
		return none, err
	}
	if v.State != record.StateReady {
		return none, halfMade(ref.VMID)
	}
	if err := change(ctx, v, grace); err != nil {
		return none, err
	}
	return d.view(ctx, v)
}

func halfMade(vmid uint32) error {
	return fault.New(fault.Precondition, "vm %d is only half-made", vmid).
		WithHint("create it again, which finishes it, or destroy it")
}

func (d *Driver) powerOn(ctx context.Context, v *record.VM, _ time.Duration) error {
	id, err := d.program(v)
	if err != nil {
		return err
	}
	if id == nil || v.Run.State == record.RunStarting {
		return d.start(ctx, v)
	}
	if v.Run.State == record.RunNaming {
		return d.goOn(ctx, v)
	}
	status, err := d.status(ctx, v.VMID)
	if err != nil {
		return err
	}
	if status == "running" {
		return nil
	}
	// Paused by us, on a full disk, or by a crash right before its first step.
	if err := d.command(ctx, v.VMID, "cont"); err != nil {
		return err
	}
	return d.expect(ctx, v.VMID, hypervisor.PowerOn)
}

func (d *Driver) pause(ctx context.Context, v *record.VM, _ time.Duration) error {
	id, err := d.program(v)
	if err != nil {
		return err
	}
	if id == nil || !v.Run.Complete() {
		return fault.New(fault.Precondition, "vm %d is off", v.VMID).WithHint("start it first")
	}
	if err := d.command(ctx, v.VMID, "stop"); err != nil {
		return err
	}
	return d.expect(ctx, v.VMID, hypervisor.PowerPaused)
}

func (d *Driver) expect(ctx context.Context, vmid uint32, want hypervisor.Power) error {
	status, err := d.status(ctx, vmid)
	if err != nil {
		return err
	}
	if powerOf(status) != want {
		return fault.New(fault.Internal, "vm %d is %q, not %s", vmid, status, want)
	}
	return nil
}

// shutdown presses the power button and waits. A guest that is still there
// after grace is stopped hard. If ctx ends first, the guest is left to go on.
func (d *Driver) shutdown(ctx context.Context, v *record.VM, grace time.Duration) error {
	id, err := d.program(v)
	if err != nil {
		return err
	}
	if id == nil {
		return d.clearRun(v)
	}
	if v.Run.AtWork() && grace > 0 {
		d.saveConsole(ctx, v.VMID)
		// A paused guest cannot see the button.
		if err := d.command(ctx, v.VMID, "cont", "system_powerdown"); err != nil {
			plugin.Log(ctx, d.log).Warn("guest was not asked to shut down", "vmid", v.VMID, "err", err)
			return d.powerOff(ctx, v, 0)
		}
		gone, err := ended(ctx, *id, grace)
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil && !gone {
			return fault.New(fault.Timeout, "wait for vm %d to shut down: %w", v.VMID, err)
		}
		if !gone {
			plugin.Log(ctx, d.log).Info("guest did not shut down in time", "vmid", v.VMID, "took", grace)
		}
	}
	return d.powerOff(ctx, v, 0)
}

// powerOff lets QEMU close its disk, then kills it.
func (d *Driver) powerOff(ctx context.Context, v *record.VM, _ time.Duration) error {
	id, err := d.program(v)
	if err != nil {
		return err
	}
	if id != nil && v.Run.AtWork() {
		d.saveConsole(ctx, v.VMID)
		if err := d.quit(ctx, v.VMID, *id); err != nil {
			plugin.Log(ctx, d.log).Warn("qemu did not quit", "vmid", v.VMID, "err", err)
		}
	}
	if err := d.kill(ctx, d.tenant(v)); err != nil {
		return err
	}
	d.forget(v.VMID)
	return d.clearRun(v)
}

// saveConsole keeps what would be lost with the program. It is best effort.
func (d *Driver) saveConsole(ctx context.Context, vmid uint32) {
	if _, err := d.drainConsole(ctx, vmid); err != nil {
		plugin.Log(ctx, d.log).Debug("console was not saved", "vmid", vmid, "err", err)
	}
}

func (d *Driver) quit(ctx context.Context, vmid uint32, id procfs.Identity) error {
	err := d.ask(ctx, vmid, d.monitorWait, func(ctx context.Context, c *qmp.Client) error {
		return c.Execute(ctx, "quit", nil, nil)
	})
	// QEMU may hang up before it confirms.
	if err != nil && !errors.Is(err, fault.Unavailable) {
		return err
	}
	gone, err := ended(ctx, id, d.quitWait)
	if err == nil && !gone {
		err = fault.New(fault.Timeout, "qemu still runs %s after quit", d.quitWait)
	}
	return err
}
