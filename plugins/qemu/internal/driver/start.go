package driver

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// errDied says that QEMU ended before its monitor answered: another way of
// executing the guest may do better.
var errDied = errors.New("qemu ended while it started")

// start brings an off VM to its first instruction: from memory if it was made for
// that and has never run, and else by a boot. Caller holds the VM's lock.
func (d *Driver) start(ctx context.Context, v *record.VM) error {
	defer d.spares.starting()()
	if err := d.basesThere(v); err != nil {
		return err
	}
	reason := d.whyBoot(ctx, v)
	if v.Memory != nil && !v.Booted {
		err := d.startFromMemory(ctx, v)
		var unfit *unfitError
		if err == nil || ctx.Err() != nil || !errors.As(err, &unfit) {
			return err
		}
		plugin.Log(ctx, d.log).Warn("vm does not start from memory and boots", "vmid", v.VMID, "err", err)
		if err := d.forsake(ctx, v); err != nil {
			return err
		}
		reason = unfit.Error()
	}
	if err := d.boot(ctx, v, reason); err != nil {
		return err
	}
	d.warmLater(ctx, v)
	return nil
}

// basesThere makes sure of what the VM's disk lies on. One that has never run can
// have another disk, so its memory template is not missed.
func (d *Driver) basesThere(v *record.VM) error {
	bases := v.Bases()
	if !v.Booted {
		bases = []string{v.Template.Disk}
	}
	for _, path := range bases {
		if _, err := os.Stat(path); err != nil {
			return fault.New(fault.Precondition, "disk of template %s %s is gone: %w", v.Template.Name, v.Template.Version, err).
				WithHint("the vm's own disk depends on it: build that image again or destroy the vm")
		}
	}
	return nil
}

// boot tries the ways to execute guests in turn.
func (d *Driver) boot(ctx context.Context, v *record.VM, reason string) error {
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
		err = d.startWith(ctx, v, start{way: way, reason: reason})
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

// start is one way to start a VM.
type start struct {
	way    machine.Accel
	reason string   // why it boots
	ram    *os.File // of its memory template; nil boots
	state  *os.File
	spare  *spare      // goes on from ram and state already
	named  func(guest) // gets the way to a guest from memory once it has its identity
	// prepare, if any, is called while QEMU is paused, for a guest that goes on
	// from what it loads.
	prepare func(context.Context) error
}

func (s start) name() hypervisor.Way {
	switch {
	case s.ram != nil:
		return hypervisor.WayMemory
	case s.prepare != nil:
		return ""
	}
	return hypervisor.WayBoot
}

// startWith starts QEMU paused, does what is to be done in that state, notes it,
// and lets it go. Whatever happens before that last step, the guest has not run,
// and a repeat begins anew. From memory it stops short of the last step: see letGo.
func (d *Driver) startWith(ctx context.Context, v *record.VM, s start) (err error) {
	// A start cut short before its pid was noted, or a way that failed.
	if err := d.kill(ctx, d.tenant(v)); err != nil {
		return err
	}
	if err := d.store.ForgetFormer(v.VMID); err != nil {
		return err
	}
	v.Run = &record.Run{
		State: record.RunStarting, BootID: d.bootID, Started: time.Now().UTC(), Accel: s.way.Name,
		Way: string(s.name()), Reason: s.reason,
	}
	if s.spare != nil {
		v.UID, v.Run.Mark = s.spare.dir.Note.UID, s.spare.dir.Note.Mark
		v.Run.Reason = "a spare guest waited"
		v.Run.PID, v.Run.StartTicks = s.spare.program.PID, s.spare.program.StartTicks
	}
	if err := d.announce(ctx, v); err != nil {
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
	program, err := d.spawn(ctx, v, s)
	if err != nil {
		return err
	}
	defer program.Close()
	d.crash("spawned")
	if s.spare == nil { // whose program was known before
		v.Run.PID, v.Run.StartTicks = program.PID, program.StartTicks
		if err := d.announce(ctx, v); err != nil {
			return err
		}
	}
	if err := d.awaitMonitor(ctx, v, program); err != nil {
		return s.blame(err)
	}
	if err := spawn.Scope(ctx, v.VMID, v.UID, program.PID); err != nil {
		return err
	}
	d.crash("answered")
	if s.ram != nil {
		return d.wake(ctx, v, s, program)
	}
	if s.prepare != nil {
		if err := s.prepare(ctx); err != nil {
			return err
		}
	}
	if err := d.complete(ctx, v); err != nil {
		return err
	}
	return d.command(ctx, v.VMID, "cont")
}

// announce writes down what the VM's program is or will be known by, outside of the VM's
// folder, too, where that does not follow from its number and owner.
func (d *Driver) announce(ctx context.Context, v *record.VM) error {
	if v.UID != d.uid(v.VMID) {
		err := d.store.NoteFormer(ctx, v.VMID, record.Spare{
			Owner: v.Owner, UID: v.UID, Mark: v.Mark(), BootID: v.Run.BootID, PID: v.Run.PID, StartTicks: v.Run.StartTicks,
		})
		if err != nil {
			return err
		}
		d.crash("noted-outside")
	}
	return d.store.Save(v)
}

// complete notes that the VM is on.
func (d *Driver) complete(ctx context.Context, v *record.VM) error {
	v.Run.State, v.Booted = record.RunRunning, true
	if err := d.store.Save(v); err != nil {
		return err
	}
	d.crash("recorded")
	plugin.Log(ctx, d.log).Info("vm started", "vmid", v.VMID, "took", time.Since(v.Run.Started))
	return nil
}

// undoStart keeps the note of a start whose program could not be ended: by it,
// whatever is left is known as the VM's.
func (d *Driver) undoStart(ctx context.Context, v *record.VM) error {
	if err := d.kill(ctx, d.tenant(v)); err != nil {
		return err
	}
	return d.clearRun(v)
}

// spawn gives the VM a program of its own: a new one, or a spare's.
func (d *Driver) spawn(ctx context.Context, v *record.VM, s start) (*spawn.Program, error) {
	if s.spare != nil {
		return d.occupy(ctx, v, s.spare)
	}
	if err := d.ownSeed(v); err != nil {
		return nil, err
	}
	m := d.machine(v, s.way)
	volumes, err := d.handOver(v)
	if err != nil {
		return nil, err
	}
	if s.ram == nil {
		m.Volumes = volumes // a frozen guest has no place for them until it is loaded
	}
	return d.launch(launch{
		machine: m, dir: d.store.Dir(v.VMID), uid: v.UID, ram: s.ram, state: s.state,
		tap: func() (*os.File, error) { return d.openTap(v.NIC.Tap) },
	})
}

func (d *Driver) machine(v *record.VM, way machine.Accel) machine.Machine {
	return machine.Machine{
		Name: "agentlab-" + formatVMID(v.VMID), UUID: v.Mark(), Accel: way, TBMiB: d.cfg.TBMiB,
		Cores: v.Cores, MemoryBytes: v.MemoryBytes,
		Kernel: v.Template.Kernel, Initrd: v.Template.Initrd, Cmdline: v.Template.Cmdline,
		Bus: machine.Bus(v.Template.DiskBus), Disk: d.store.Path(v.VMID, diskName), Bases: v.Bases(),
		Seed: d.store.Path(v.VMID, seedName), MAC: v.NIC.MAC,
	}
}

// awaitMonitor returns once QEMU answers.
func (d *Driver) awaitMonitor(ctx context.Context, v *record.VM, p *spawn.Program) error {
	return d.awaitProgram(ctx, p, func(ctx context.Context) error {
		_, err := d.status(ctx, v.VMID)
		return err
	})
}

// awaitProgram asks until there is an answer. A QEMU that ends instead is explained
// by its own last words.
func (d *Driver) awaitProgram(ctx context.Context, p *spawn.Program, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if died := d.died(p); died != nil {
			return died
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

// died is nil while the program runs.
func (d *Driver) died(p *spawn.Program) error {
	if !errors.Is(procfs.Check(p.Identity), procfs.ErrGone) {
		return nil
	}
	return &fault.Error{
		Class: classOf(p.Output()), Message: errDied.Error(), Err: errDied, Command: d.cfg.QEMUBinary,
		Stderr: p.Output(), Hint: "the message is QEMU's own",
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
