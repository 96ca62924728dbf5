package driver

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// startFromSpare makes a spare this VM, if one waits and is well. Without one it does
// nothing, and after a failure the VM can be started as if there had been none: whatever
// is wrong with the one may be wrong with the next.
func (d *Driver) startFromSpare(ctx context.Context, v *record.VM, from start) (done bool, err error) {
	if !d.spares.waits(v.Memory.Key) {
		return false, nil
	}
	// A snapshot lies in the VM's disk, and the spare's would replace that.
	if kept, err := d.store.Snapshots(v.VMID); err != nil || len(kept) > 0 {
		return false, err
	}
	for s := d.spares.take(v.Memory.Key); s != nil; s = d.spares.take(v.Memory.Key) {
		if err := s.usable(v); err != nil {
			plugin.Log(ctx, d.log).Warn("spare guest is of no use", "uid", s.dir.Note.UID, "err", err)
			d.endSpares(ctx, []*spare{s})
			continue
		}
		from.spare = s
		err := d.startWith(ctx, v, from)
		_ = s.tap.Close() // QEMU has it
		if err == nil {
			plugin.Log(ctx, d.log).Debug("vm was a spare guest", "vmid", v.VMID, "uid", v.UID)
			return true, nil
		}
		d.endSpares(ctx, []*spare{s})
		d.spares.note(s.key, err)
		if ctx.Err() != nil || v.Run != nil { // of a program that could not be ended
			return false, err
		}
		plugin.Log(ctx, d.log).Warn("spare guest did not become the vm", "vmid", v.VMID, "err", err)
		// It keeps the spare's user: its own before that may be another's by now.
		return false, d.freshDisk(ctx, v)
	}
	return false, nil
}

// usable says why a spare cannot become the VM.
func (s *spare) usable(v *record.VM) error {
	if err := procfs.Check(s.program.Identity); err != nil {
		return err
	}
	base, err := os.Stat(v.Memory.Disk)
	if err != nil {
		return err
	}
	if !os.SameFile(base, s.base) {
		return errors.New("its memory template has been made anew since")
	}
	return nil
}

// ownSeed gives the VM's user the seed, which may be that of a spare that did not come to
// be this VM.
func (d *Driver) ownSeed(v *record.VM) error {
	path := d.store.Path(v.VMID, seedName)
	st, err := os.Lstat(path)
	if err != nil {
		return record.Classify("look at seed", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid == v.UID {
		return nil
	}
	image, err := d.readSeed(v.VMID)
	if err != nil {
		return err
	}
	return record.WriteFile(path, image, 0o400, int(v.UID))
}

// occupy hands all of the spare over to the VM, whose record names its program and its
// user by now. It has come to its end when the spare's note is gone.
func (d *Driver) occupy(ctx context.Context, v *record.VM, s *spare) (*spawn.Program, error) {
	if _, err := d.handOver(v); err != nil {
		return nil, err
	}
	if err := d.imprint(v.VMID, s.dir.Path(seedName)); err != nil {
		return nil, err
	}
	d.crash("imprinted")
	for _, name := range []string{diskName, seedName, monitorName, channelName} {
		if err := os.Rename(s.dir.Path(name), d.store.Path(v.VMID, name)); err != nil {
			return nil, record.Classify("take over "+name, err)
		}
		d.crash("took " + name)
	}
	if err := d.replug(s.tap, v.NIC.Tap); err != nil {
		return nil, err
	}
	d.crash("occupied")
	return s.program, s.dir.Remove()
}

// imprint makes the seed disk that the spare has open the VM's.
func (d *Driver) imprint(vmid uint32, path string) error {
	image, err := d.readSeed(vmid)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return record.Classify("write seed", err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() != int64(len(image)) {
		err = fault.New(fault.Precondition, "the spare's seed has %d bytes and the vm's %d", st.Size(), len(image))
	}
	if err == nil {
		_, err = f.WriteAt(image, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return record.Classify("write seed", errors.Join(err, f.Close()))
}
