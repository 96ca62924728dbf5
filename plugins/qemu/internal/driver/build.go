package driver

import (
	"context"
	"errors"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/hostcheck"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/seediso"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	// settleTimeout is for a boot under emulation on a busy host, at the lowest
	// priority. A guest that cannot become a template never answers.
	settleTimeout = 5 * time.Minute
	// buildMAC is of a card that is on no network.
	buildMAC = "52:54:00:00:00:00"
	// spareDisk is what a build leaves free beside the guest's memory.
	spareDisk = 1 << 30
	// bootMemory is more than a guest has written to when it has booted, and
	// spareMemory more than QEMU needs beside that.
	bootMemory  = 1 << 30
	spareMemory = 512 << 20
)

// build makes the memory template for VMs like v.
func (d *Driver) build(
	ctx context.Context, fit memory.Fit, v *record.VM, progress func(hypervisor.Progress),
) (t memory.Template, err error) {
	tell := func(phase string, fraction float64) {
		if progress != nil {
			progress(hypervisor.Progress{Phase: phase, Fraction: fraction})
		}
	}
	tell("wait for other builds", 0)
	unlock, err := d.memory.LockBuild(ctx)
	if err != nil {
		return t, err
	}
	defer unlock()
	if d.warming.failure(fit.Key()).starts > 0 {
		if err := d.discardLocked(ctx, fit.Key()); err != nil {
			return t, err
		}
	}
	// Another call may have made it meanwhile.
	if t, err = d.memory.Find(fit.Key()); !errors.Is(err, fault.NotFound) {
		return t, err
	}
	if err := d.tidyLocked(ctx); err != nil {
		return t, err
	}
	if t, err = d.adoptLocked(ctx, fit.Key()); err == nil {
		return t, nil
	}
	if err := d.roomToBuild(fit); err != nil {
		return t, err
	}
	draft, err := d.memory.Begin()
	if err != nil {
		return t, err
	}
	d.crash("begun")
	err = d.freeze(ctx, draft, fit, v, tell)
	// Nothing may have its files open when they become the template's.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	err = errors.Join(err, d.endBuilder(clean))
	if err == nil {
		d.crash("ended")
		t, err = draft.Commit(fit)
	}
	if err != nil {
		return t, errors.Join(err, draft.Discard())
	}
	d.vault.Drop(t.Key) // of an earlier one, if it was removed behind our back
	d.crash("committed")
	d.publish(ctx, t.Key)
	tell("done", 1)
	return t, nil
}

// roomToBuild refuses what would fill the host's disk or memory.
func (d *Driver) roomToBuild(fit memory.Fit) error {
	free, err := hostcheck.DiskFree(d.state)
	if err != nil {
		return fault.New(fault.Unavailable, "build memory template: %w", err)
	}
	if need := fit.MemoryMiB<<20 + spareDisk; free < need {
		return fault.New(fault.Exhausted, "a memory template may take %d MiB, and %d MiB of disk are free", need>>20, free>>20).
			WithHint("free space on the file system of the plugin's state folder")
	}
	_, available, err := hostcheck.Memory()
	if err != nil {
		return fault.New(fault.Unavailable, "build memory template: %w", err)
	}
	// A guest that has only booted has used little of a large memory.
	if need := min(fit.MemoryMiB<<20, bootMemory) + spareMemory; available < need {
		return fault.New(fault.Exhausted, "a memory template may take %d MiB of memory while it is made, and %d are free", need>>20, available>>20).
			WithHint("stop a VM, or make it later")
	}
	return nil
}

// freeze boots a guest into the draft, waits until it has settled, and stops it
// there for good.
func (d *Driver) freeze(
	ctx context.Context, draft *memory.Draft, fit memory.Fit, v *record.VM, tell func(string, float64),
) error {
	tell("boot", 0.05)
	p, err := d.startDraft(ctx, draft, fit, v)
	if err != nil {
		return err
	}
	defer p.Close()
	d.crash("started")
	c, err := d.monitorOf(ctx, draft.Dir, p)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := c.Execute(ctx, "cont", nil, nil); err != nil {
		return err
	}
	if err := d.awaitSettled(ctx, draft.Dir, p); err != nil {
		return err
	}
	d.crash("settled")
	tell("freeze", 0.9)
	if err := saveState(ctx, c, draft); err != nil {
		return err
	}
	d.crash("saved")
	// It may hang up before it confirms, and is killed if it does not end.
	_ = c.Execute(ctx, "quit", nil, nil)
	_, err = ended(ctx, p.Identity, endTimeout)
	return err
}

// startDraft starts the guest that is to become the template: with everything
// that a VM has, and no identity, no secret and no way out.
func (d *Driver) startDraft(ctx context.Context, draft *memory.Draft, fit memory.Fit, v *record.VM) (*spawn.Program, error) {
	note, err := d.announceBuilder()
	if err != nil {
		return nil, err
	}
	uid := note.UID
	blank, err := seediso.Render(seediso.Template, nil)
	if err != nil {
		return nil, err
	}
	if err := record.WriteFile(draft.Path(seedName), blank, 0o400, int(uid)); err != nil {
		return nil, err
	}
	err = disk.Create(ctx, disk.Overlay{Path: draft.Path(memory.DiskName), Base: v.Template.Disk, Bytes: v.DiskBytes, UID: uid})
	if err != nil {
		return nil, err
	}
	ram, err := draft.RAM(int64(fit.MemoryMiB)<<20, uid)
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	p, err := d.launch(launch{
		machine: machine.Machine{
			Name: "agentlab-template", UUID: note.Mark, Accel: fit.Accel, TBMiB: d.cfg.TBMiB,
			Cores: v.Cores, MemoryBytes: v.MemoryBytes,
			Kernel: v.Template.Kernel, Initrd: v.Template.Initrd, Cmdline: v.Template.Cmdline,
			Bus: machine.Bus(v.Template.DiskBus), Disk: draft.Path(memory.DiskName), Bases: []string{v.Template.Disk},
			Seed: draft.Path(seedName), MAC: buildMAC,
		},
		dir: draft.Dir, uid: uid, tap: tap.Unplugged, ram: ram, shared: true, background: true,
	})
	if err != nil {
		return nil, err
	}
	d.crash("spawned")
	// Before it runs: its guest can change all else that it is known by.
	note.PID, note.StartTicks = p.PID, p.StartTicks
	if err := d.memory.NoteBuilder(note); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (d *Driver) monitorOf(ctx context.Context, dir string, p *spawn.Program) (*qmp.Client, error) {
	var c *qmp.Client
	err := d.awaitProgram(ctx, p, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, d.monitorWait)
		defer cancel()
		c, err = qmp.Dial(ctx, dir, monitorName)
		return err
	})
	return c, err
}

// awaitSettled returns when the guest may be frozen. The channel is let go before
// that, so that no clone finds it in use.
func (d *Driver) awaitSettled(ctx context.Context, dir string, p *spawn.Program) error {
	conn, err := qmp.Connect(ctx, dir, channelName)
	if err != nil {
		return fault.New(fault.Unavailable, "connect to the guest's channel: %w", err)
	}
	h := d.greet(conn)
	defer h.Close()
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	program, err := procfs.Open(p.Identity)
	if err != nil {
		return errors.Join(d.died(p), err)
	}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		_ = program.Wait(alive)
		cancel() // nobody answers any more
	}()
	err = h.AwaitReady(alive)
	cancel()
	<-watching
	program.Close()
	if died := d.died(p); died != nil {
		return died
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, fault.Timeout) {
		return fault.New(fault.Timeout, "the guest did not say within %s that it can be frozen", settleTimeout).
			WithHint("the image may be too old to become a memory template: build it again with this version")
	}
	return err
}

// saveState writes all of the guest but its memory, which is in its file already.
func saveState(ctx context.Context, c *qmp.Client, draft *memory.Draft) error {
	state, err := draft.State()
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }()
	if err := c.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := ignoreSharedMemory(ctx, c); err != nil {
		return err
	}
	if err := c.Give(ctx, memory.StateName, state); err != nil {
		return err
	}
	if err := c.Execute(ctx, "migrate", map[string]any{"uri": "fd:" + memory.StateName}, nil); err != nil {
		return err
	}
	if err := migrated(ctx, c); err != nil {
		return err
	}
	st, err := state.Stat()
	if err == nil && st.Size() == 0 {
		err = errors.New("it is empty")
	}
	return record.Classify("look at the guest's state", err)
}
