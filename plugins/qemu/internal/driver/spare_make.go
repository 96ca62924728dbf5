package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/seediso"
	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// makeTimeout is for one spare on a busy host.
const makeTimeout = 2 * time.Minute

// sparesLater has as many spares as are wanted wait for VMs like this one, which has just
// started from memory. They are made in the background.
func (d *Driver) sparesLater(ctx context.Context, v *record.VM) {
	if d.cfg.Spares == 0 || v.Memory == nil {
		return
	}
	t, err := d.catalog.Find(v.Template.Name)
	if err != nil || noted(t) != v.Template {
		return // no further VM will be made of that image
	}
	key, like := v.Memory.Key, sized(t, v.Cores, v.MemoryBytes, v.DiskBytes)
	like.Memory = &record.Memory{Key: key, Disk: v.Memory.Disk}
	log := plugin.Log(ctx, d.log)
	d.spares.begin(ctx, key, func(ctx context.Context) error {
		// A plugin that has given way to this one may have ended without this.
		if err := d.tidySpares(ctx); err != nil {
			log.Warn("spare guests of another plugin were not ended", "err", err)
		}
		d.endSpares(ctx, d.spares.useless())
		for d.spares.lacks(key, int(d.cfg.Spares)) {
			if err := d.spares.quiet(ctx); err != nil {
				return err
			}
			began := time.Now()
			if err := d.addSpare(ctx, like); err != nil {
				if ctx.Err() == nil && !d.spares.fails(key) { // it is said once
					log.Warn("spare guest was not made", "err", err)
				}
				return err
			}
			log.Debug("spare guest waits", "took", time.Since(began))
		}
		return nil
	})
}

// RestoreSpares has spares wait as they did before the plugin's last end: for VMs like the
// last one that started from memory.
func (d *Driver) RestoreSpares(ctx context.Context) error {
	if d.cfg.Spares == 0 || !d.cfg.warms() {
		return nil
	}
	last, err := d.memory.LastUsed()
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	t, err := d.catalog.Find(last.Fit.Name)
	if errors.Is(err, fault.NotFound) {
		return nil // the template is collected soon
	}
	if err != nil {
		return err
	}
	like := sized(t, last.Fit.Cores, last.Fit.MemoryMiB<<20, last.Fit.DiskBytes)
	like.Memory = &record.Memory{Key: last.Key, Disk: d.memory.Path(last.Key, memory.DiskName)}
	d.sparesLater(ctx, like)
	return nil
}

// addSpare keeps the template while it makes a spare: whoever removes one ends the
// spares that wait.
func (d *Driver) addSpare(ctx context.Context, like *record.VM) error {
	unlock, err := d.memory.LockUse(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := d.makeSpare(ctx, like)
	if err != nil {
		return err
	}
	if !d.spares.put(s) {
		return d.endSpare(ctx, s)
	}
	return nil
}

// makeSpare starts a guest from the memory template, lets it rehearse, and stops it.
func (d *Driver) makeSpare(ctx context.Context, like *record.VM) (_ *spare, err error) {
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	if err := d.roomForSpare(like.MemoryBytes); err != nil {
		return nil, err
	}
	from, err := d.source(ctx, like)
	if err != nil {
		return nil, err
	}
	defer from.ram.Close()
	defer from.state.Close()
	base, err := os.Stat(like.Memory.Disk)
	if err != nil {
		return nil, record.Classify("look at disk of memory template", err)
	}
	dir, err := d.announceSpare(ctx)
	if err != nil {
		return nil, err
	}
	s := &spare{key: like.Memory.Key, base: base, dir: dir}
	defer func() {
		if err != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
			defer cancel()
			err = errors.Join(err, d.endSpare(clean, s))
		}
	}()
	if err := d.startSpare(ctx, s, like, from); err != nil {
		return nil, err
	}
	d.crash("spare-started")
	if err := d.rehearse(ctx, s); err != nil {
		return nil, err
	}
	s.dir.Note.Waits = true
	return s, s.dir.Save()
}

// roomForSpare keeps spares from taking what VMs would need.
func (d *Driver) roomForSpare(guest uint64) error {
	_, available, err := d.vault.Memory()
	if err != nil {
		return fault.New(fault.Unavailable, "make spare guest: %w", err)
	}
	if need := guest + spareMemory; available < need {
		return fault.New(fault.Exhausted, "a spare guest is to leave %d MiB of memory free, and %d are", need>>20, available>>20).
			WithHint("stop VMs, or set spares of the qemu plugin to 0")
	}
	return nil
}

// announceSpare chooses a user that nobody has and notes what is going to run as that.
func (d *Driver) announceSpare(ctx context.Context) (record.SpareDir, error) {
	none := record.SpareDir{}
	used, err := d.usedUsers()
	if err != nil {
		return none, err
	}
	for uid := d.cfg.spareUID(); uid < d.cfg.endUID(); uid++ {
		if slices.Contains(used, uid) {
			continue
		}
		err := d.unusedBy(0, uid)
		if err == nil {
			var dir record.SpareDir
			dir, err = d.store.ClaimSpare(ctx, record.Spare{
				UID: uid, BootID: d.bootID, Mark: record.Mark(uid, "spare guest "+rand.Text()),
			})
			if err == nil {
				return dir, nil
			}
		}
		if !errors.Is(err, fault.Exists) {
			return none, err
		}
	}
	return none, fault.New(fault.Exhausted, "no user is left for a spare guest")
}

// usedUsers gives the users of all VMs and spares.
func (d *Driver) usedUsers() ([]uint32, error) {
	used, err := d.store.SpareUsers()
	if err != nil {
		return nil, err
	}
	vmids, err := d.store.List()
	if err != nil {
		return nil, err
	}
	for _, vmid := range vmids {
		users, err := d.store.Users(vmid)
		if err != nil {
			return nil, err
		}
		used = append(used, users...)
	}
	return used, nil
}

func (d *Driver) startSpare(ctx context.Context, s *spare, like *record.VM, from start) error {
	dir, uid := s.dir, s.dir.Note.UID
	blank, err := seediso.Render(seediso.Template, nil)
	if err != nil {
		return err
	}
	if err := record.WriteFile(dir.Path(seedName), blank, 0o400, int(uid)); err != nil {
		return err
	}
	err = disk.Create(ctx, disk.Overlay{Path: dir.Path(diskName), Base: like.Memory.Disk, Bytes: like.DiskBytes, UID: uid})
	if err != nil {
		return err
	}
	if s.tap, err = tap.Unplugged(); err != nil {
		return err
	}
	s.program, err = d.launch(launch{
		machine: machine.Machine{
			Name: "agentlab-guest-" + strconv.FormatUint(uint64(uid), 10), UUID: dir.Note.Mark, Accel: from.way, TBMiB: d.cfg.TBMiB,
			Cores: like.Cores, MemoryBytes: like.MemoryBytes,
			Kernel: like.Template.Kernel, Initrd: like.Template.Initrd, Cmdline: like.Template.Cmdline,
			Bus: machine.Bus(like.Template.DiskBus), Disk: dir.Path(diskName), Bases: like.Bases(),
			Seed: dir.Path(seedName), MAC: buildMAC,
		},
		dir: dir.Dir(), uid: uid, ram: from.ram, state: from.state, tap: func() (*os.File, error) { return again(s.tap) },
	})
	if err != nil {
		return err
	}
	d.crash("spare-spawned")
	s.dir.Note.PID, s.dir.Note.StartTicks = s.program.PID, s.program.StartTicks
	return s.dir.Save()
}

// again is the same open file under another descriptor.
func again(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "hand over %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// rehearse loads the frozen guest and lets it run until it has done all that it will
// have to do once it has an identity, as far as that can be done without one.
func (d *Driver) rehearse(ctx context.Context, s *spare) error {
	c, err := d.monitorOf(ctx, s.dir.Dir(), s.program)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := loadState(ctx, c); err != nil {
		return errors.Join(d.died(s.program), err)
	}
	if err := runWith(ctx, c, "shutdown"); err != nil {
		return err
	}
	conn, err := qmp.Connect(ctx, s.dir.Dir(), channelName)
	if err != nil {
		return fault.New(fault.Unavailable, "connect to the guest's channel: %w", err)
	}
	h := d.greet(conn)
	err = h.Rehearse(ctx)
	if err := errors.Join(err, h.Close()); err != nil {
		return err
	}
	return c.Execute(ctx, "stop", nil, nil)
}

// source opens the memory template that VMs like this one start from, if they still do.
func (d *Driver) source(ctx context.Context, like *record.VM) (start, error) {
	fit, err := d.fit(ctx, like)
	if err != nil {
		return start{}, err
	}
	return d.open(ctx, like, fit)
}

// open opens what a memory template has, if it fits still.
func (d *Driver) open(ctx context.Context, v *record.VM, fit memory.Fit) (start, error) {
	if f := d.warming.failure(v.Memory.Key); f.shunned() {
		return start{}, unfit("%s", f)
	}
	t, err := d.memory.Find(v.Memory.Key)
	if errors.Is(err, fault.NotFound) {
		return start{}, unfit("its memory template is gone or damaged")
	}
	if err != nil {
		return start{}, &unfitError{err}
	}
	if why := t.Fit.Differs(fit); why != "" {
		return start{}, unfit("%s", why)
	}
	ram, err := d.vault.Take(ctx, d.memory, t.Key)
	if err != nil {
		return start{}, &unfitError{err}
	}
	state, err := os.Open(d.memory.Path(t.Key, memory.StateName))
	if err != nil {
		_ = ram.Close()
		return start{}, &unfitError{err}
	}
	return start{way: fit.Accel, ram: ram, state: state}, nil
}
