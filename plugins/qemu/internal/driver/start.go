package driver

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// errDied says that QEMU ended before its monitor answered: another way of
// executing the guest may do better.
var errDied = errors.New("qemu ended while it started")

// start brings an off VM to its first instruction. Caller holds the VM's lock.
func (d *Driver) start(ctx context.Context, v *record.VM) error {
	if _, err := os.Stat(v.Template.Disk); err != nil {
		return fault.New(fault.Precondition, "disk of template %s %s is gone: %w", v.Template.Name, v.Template.Version, err).
			WithHint("the vm's own disk depends on it: build that image again or destroy the vm")
	}
	version, err := d.versions.QEMU(ctx, d.cfg.QEMUBinary)
	if err != nil {
		return err
	}
	ways, err := d.chooser.Ways(ctx, version)
	if err != nil {
		return err
	}
	failed := map[machine.Accel]string{}
	for i, way := range ways {
		err = d.startWith(ctx, v, way, nil)
		if err == nil {
			for bad, why := range failed {
				d.chooser.Failed(bad, why)
			}
			return nil
		}
		if !errors.Is(err, errDied) || i == len(ways)-1 {
			break
		}
		failed[way] = err.Error()
	}
	return err
}

// startWith starts QEMU paused, does what is to be done in that state, notes it,
// and lets it go. Whatever happens before that last step, the guest has not run,
// and a repeat begins anew.
func (d *Driver) startWith(
	ctx context.Context, v *record.VM, way machine.Accel, prepare func(context.Context) error,
) (err error) {
	// A start cut short before its pid was noted, or a way that failed.
	if err := d.kill(ctx, d.tenant(v)); err != nil {
		return err
	}
	v.Run = &record.Run{State: record.RunStarting, BootID: d.bootID, Started: time.Now().UTC(), Accel: way.Name}
	if err := d.store.Save(v); err != nil {
		return err
	}
	d.crash("announced")
	defer func() {
		if err != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
			defer cancel()
			err = errors.Join(err, d.undoStart(clean, v))
		}
	}()
	program, err := d.spawn(v, way)
	if err != nil {
		return err
	}
	defer program.Close()
	d.crash("spawned")
	v.Run.PID, v.Run.StartTicks = program.PID, program.StartTicks
	if err := d.store.Save(v); err != nil {
		return err
	}
	if err := d.awaitMonitor(ctx, v, program); err != nil {
		return err
	}
	if err := spawn.Scope(ctx, v.VMID, v.UID, program.PID); err != nil {
		return err
	}
	d.crash("answered")
	if prepare != nil {
		if err := prepare(ctx); err != nil {
			return err
		}
	}
	v.Run.State, v.Booted = record.RunRunning, true
	if err := d.store.Save(v); err != nil {
		return err
	}
	d.crash("recorded")
	plugin.Log(ctx, d.log).Info("vm started", "vmid", v.VMID, "took", time.Since(v.Run.Started))
	return d.command(ctx, v.VMID, "cont")
}

// undoStart keeps the note of a start whose program could not be ended: by it,
// whatever is left is known as the VM's.
func (d *Driver) undoStart(ctx context.Context, v *record.VM) error {
	if err := d.kill(ctx, d.tenant(v)); err != nil {
		return err
	}
	return d.clearRun(v)
}

// spawn opens what QEMU is handed and starts it.
func (d *Driver) spawn(v *record.VM, way machine.Accel) (*spawn.Program, error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, name := range []string{monitorName, channelName} {
		f, err := spawn.Listen(d.store.Dir(v.VMID), name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	tap, err := d.openTap(v.NIC.Tap)
	if err != nil {
		return nil, err
	}
	files = append(files, tap)
	var groups []uint32
	if way.Name == accel.KVM {
		if groups, err = accel.DeviceGroups(d.chooser.Device); err != nil {
			return nil, fault.New(fault.Precondition, "use kvm: %w", err)
		}
	}
	m := d.machine(v, way)
	if m.Volumes, err = d.handOver(v); err != nil {
		return nil, err
	}
	return spawn.Start(spawn.Spec{
		Path: d.cfg.QEMUBinary, Args: m.Args(), UID: v.UID, Groups: groups, Files: files,
	})
}

func (d *Driver) machine(v *record.VM, way machine.Accel) machine.Machine {
	return machine.Machine{
		Name: "agentlab-" + formatVMID(v.VMID), UUID: v.Mark(), Accel: way, TBMiB: d.cfg.TBMiB,
		Cores: v.Cores, MemoryBytes: v.MemoryBytes,
		Kernel: v.Template.Kernel, Initrd: v.Template.Initrd, Cmdline: v.Template.Cmdline,
		Bus: machine.Bus(v.Template.DiskBus), Disk: d.store.Path(v.VMID, diskName), Base: v.Template.Disk, Seed: d.store.Path(v.VMID, seedName),
		MAC: v.NIC.MAC, Monitor: spawn.FirstFile, Channel: spawn.FirstFile + 1, Tap: spawn.FirstFile + 2,
	}
}

// awaitMonitor returns once QEMU answers. One that ends instead is explained by
// its own last words.
func (d *Driver) awaitMonitor(ctx context.Context, v *record.VM, p *spawn.Program) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		_, err := d.status(ctx, v.VMID)
		if err == nil {
			return nil
		}
		if errors.Is(procfs.Check(p.Identity), procfs.ErrGone) {
			return &fault.Error{
				Class: classOf(p.Output()), Message: errDied.Error(), Err: errDied, Command: d.cfg.QEMUBinary,
				Stderr: p.Output(), Hint: "the message is QEMU's own",
			}
		}
		if ctx.Err() != nil {
			return fault.New(fault.Timeout, "wait for qemu's monitor: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// classOf finds the failures that a host can be blamed for.
func classOf(output string) fault.Class {
	switch {
	case strings.Contains(output, "Cannot allocate memory"), strings.Contains(output, "No space left"):
		return fault.Exhausted
	case strings.Contains(output, "Permission denied"):
		return fault.Precondition
	}
	return fault.Internal
}
