package driver

import (
	"context"
	"errors"
	"os/exec"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// freezable says why no guest of an image can be frozen, nil if one may be. One that
// boots by firmware is of anybody's making, and takes minutes to show that nothing in
// it answers.
func freezable(t record.Template) error {
	if t.Kernel != "" {
		return nil
	}
	return fault.New(fault.Precondition, "image %s has no kernel in its manifest, and only images that have one can start from memory", t.Name).
		WithHint("use an image that agentlab template build makes")
}

// fit is what a memory template for this VM depends on, as things are now.
func (d *Driver) fit(ctx context.Context, v *record.VM) (memory.Fit, error) {
	none := memory.Fit{}
	version, err := d.versions.QEMU(ctx, d.cfg.QEMUBinary)
	if err != nil {
		return none, err
	}
	ways, err := d.chooser.Ways(ctx, version)
	if err != nil {
		return none, err
	}
	binary, err := exec.LookPath(d.cfg.QEMUBinary)
	if err != nil {
		return none, fault.New(fault.Unavailable, "look for qemu: %w", err)
	}
	f := memory.Fit{
		Maker: memory.Maker, Name: v.Template.Name, Version: v.Template.Version, Cores: v.Cores,
		MemoryMiB: machine.MemoryMiB(v.MemoryBytes), DiskBytes: v.DiskBytes, Accel: ways[0],
	}
	for _, look := range []struct {
		to   *memory.File
		path string
	}{
		{&f.Disk, v.Template.Disk}, {&f.Kernel, v.Template.Kernel}, {&f.Initrd, v.Template.Initrd}, {&f.QEMU, binary},
	} {
		if *look.to, err = memory.Look(look.path); err != nil {
			return none, err
		}
	}
	if f.Accel.Name == accel.KVM {
		if f.Host, err = accel.Host(); err != nil {
			return none, fault.New(fault.Unavailable, "look at the host's processor: %w", err)
		}
	}
	// What is left out here is a path or a name of the VM's own.
	f.Args = machine.Machine{
		Accel: f.Accel, TBMiB: d.cfg.TBMiB, Cores: v.Cores, MemoryBytes: v.MemoryBytes,
		Kernel: v.Template.Kernel, Initrd: v.Template.Initrd, Cmdline: v.Template.Cmdline,
		Bus: machine.Bus(v.Template.DiskBus), Bases: []string{v.Template.Disk}, RAM: &machine.RAM{},
	}.Args()
	return f, nil
}

// choose notes the memory template that a VM about to be made is to start from.
// A VM without one boots.
func (d *Driver) choose(ctx context.Context, v *record.VM) error {
	v.Memory = nil
	if !d.cfg.warms() || freezable(v.Template) != nil {
		return nil
	}
	unlock, err := d.memory.LockUse(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	fit, err := d.fit(ctx, v)
	if err != nil {
		plugin.Log(ctx, d.log).Warn("memory template was not looked for", "vmid", v.VMID, "err", err)
		return ctx.Err()
	}
	if d.warming.failure(fit.Key()).shunned() {
		return nil
	}
	t, err := d.memory.Find(fit.Key())
	if errors.Is(err, fault.NotFound) {
		t, err = d.adopt(ctx, fit.Key())
	}
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Locked) {
		return nil
	}
	if err != nil {
		plugin.Log(ctx, d.log).Warn("memory template was not looked at", "vmid", v.VMID, "err", err)
		return nil
	}
	v.Memory = &record.Memory{Key: t.Key, Disk: d.memory.Path(t.Key, memory.DiskName)}
	if err := d.store.Save(v); err != nil {
		return err
	}
	// The first to use it copies its memory. That is better done now than while
	// somebody waits for the start, which would say what is wrong with it.
	if f, err := d.vault.Take(ctx, d.memory, t.Key); err == nil {
		_ = f.Close()
	}
	return nil
}

// whyBoot says for people why a VM that boots does not start from memory.
func (d *Driver) whyBoot(ctx context.Context, v *record.VM) string {
	switch {
	case v.Booted:
		return "it has run before and goes on from its own disk"
	case !d.cfg.warms():
		return "memory templates are switched off"
	}
	if why := freezable(v.Template); why != nil {
		return why.Error()
	}
	if fit, err := d.fit(ctx, v); err == nil {
		if why := d.warming.failure(fit.Key()).String(); why != "" {
			return why
		}
	}
	return "there was no memory template of its image and size when it was created; agentlab template warm makes one for those to come"
}
