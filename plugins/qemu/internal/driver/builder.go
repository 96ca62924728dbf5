package driver

import (
	"context"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
)

// buildVMID stands for the guest that becomes a template: the number behind those
// of VMs, which no new VM can have.
func (d *Driver) buildVMID() uint32 { return d.cfg.VMIDLast + 1 }

// announceBuilder notes who is going to make a template, and after that makes sure
// that nobody else is that user.
func (d *Driver) announceBuilder() (memory.Builder, error) {
	b := memory.Builder{
		UID: d.uid(d.buildVMID()), BootID: d.bootID,
		Mark: record.Mark(d.buildVMID(), "memory templates in "+d.state),
	}
	if err := d.memory.NoteBuilder(b); err != nil {
		return b, err
	}
	d.crash("noted")
	return b, d.unusedBy(0, b.UID)
}

// endBuilder ends what a build of this state folder may have left running. Caller
// holds the build lock.
func (d *Driver) endBuilder(ctx context.Context) error {
	b, err := d.memory.Builder()
	if b == nil || err != nil {
		return err
	}
	if b.BootID == d.bootID {
		// The number may have become a VM's since the note was written.
		other, err := d.neighbour(0, b.UID)
		if err != nil {
			return err
		}
		// One that was not noted yet has not run and shows its mark.
		t := tenant{uid: b.UID, mark: b.Mark, shares: other != 0 || b.PID == 0}
		if b.PID != 0 {
			t.noted = &procfs.Identity{PID: b.PID, StartTicks: b.StartTicks, UID: b.UID}
			t.alone = other == 0
		}
		if err := d.kill(ctx, t); err != nil {
			return err
		}
	}
	return d.memory.ForgetBuilder()
}
