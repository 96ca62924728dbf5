package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/seediso"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	// A host with many starts at once gives each guest little time to move in.
	nameTimeout = 30 * time.Second
	loadPoll    = 2 * time.Millisecond
	// entropyBytes is what a clone's random numbers begin with.
	entropyBytes = 256
	// ignoreShared leaves guest memory out of a migration: it is in its own file.
	ignoreShared = "x-ignore-shared"
)

// unfitError says why a VM cannot start from memory. It can still boot.
type unfitError struct{ err error }

func (e *unfitError) Error() string { return e.err.Error() }
func (e *unfitError) Unwrap() error { return e.err }

func unfit(format string, args ...any) error { return &unfitError{fmt.Errorf(format, args...)} }

// blame says that a start from memory failed for what is special about it.
func (s start) blame(err error) error {
	if err != nil && s.ram != nil {
		return &unfitError{err}
	}
	return err
}

// startFromMemory is an unfitError when the VM can be booted instead.
func (d *Driver) startFromMemory(ctx context.Context, v *record.VM) error {
	s, err := d.recall(ctx, v)
	if err != nil {
		return err
	}
	defer s.ram.Close()
	defer s.state.Close()
	if v.Memory.Spent {
		if err := d.freshDisk(ctx, v); err != nil {
			return err
		}
	}
	v.Memory.Spent = true
	var h guest
	s.named = func(g guest) { h = g }
	done, err := d.startFromSpare(ctx, v, s)
	if err != nil {
		return err
	}
	if !done {
		err = d.startWith(ctx, v, s)
	}
	if err != nil {
		var unfit *unfitError
		// A host that is out of memory does not make the template a bad one.
		if ctx.Err() == nil && errors.As(err, &unfit) && !errors.Is(err, fault.Exhausted) {
			d.warming.noteStart(v.Memory.Key, unfit)
		}
		return err
	}
	defer h.Close()
	d.warming.note(v.Memory.Key, nil)
	if err := d.memory.MarkUsed(v.Memory.Key); err != nil {
		plugin.Log(ctx, d.log).Warn("use of memory template was not noted", "vmid", v.VMID, "err", err)
	}
	if err := d.letGo(ctx, v, h); err != nil {
		return err
	}
	d.sparesLater(ctx, v)
	return nil
}

// recall opens what the VM's memory template has, if that fits still.
func (d *Driver) recall(ctx context.Context, v *record.VM) (start, error) {
	if !d.cfg.warms() {
		return start{}, unfit("memory templates are switched off")
	}
	seed, err := os.Lstat(d.store.Path(v.VMID, seedName))
	if err != nil {
		return start{}, record.Classify("look at seed", err)
	}
	if seed.Size() != seediso.Bytes {
		return start{}, unfit("its seed is larger than %d bytes", seediso.Bytes)
	}
	return d.source(ctx, v)
}

// wake loads the frozen guest into a QEMU that waits for it and makes it this VM,
// which does nothing as such yet. Up to the record of that all can begin anew.
func (d *Driver) wake(ctx context.Context, v *record.VM, s start, p *spawn.Program) error {
	if s.spare == nil {
		if err := d.load(ctx, v.VMID); err != nil {
			if died := d.died(p); died != nil {
				err = died
			}
			return &unfitError{fmt.Errorf("load memory template: %w", err)}
		}
	}
	d.crash("loaded")
	if err := d.plugAll(ctx, v); err != nil {
		return &unfitError{err}
	}
	h, err := d.name(ctx, v)
	if err != nil {
		return &unfitError{err}
	}
	d.crash("named")
	v.Run.State, v.Booted = record.RunNaming, true
	if err := d.store.Save(v); err != nil {
		v.Run.State, v.Booted = record.RunStarting, false
		return errors.Join(err, h.Close())
	}
	d.crash("naming")
	s.named(h)
	return nil
}

// plugAll gives a guest that was loaded the disks that the frozen one did not have.
// It finds them when it goes on.
func (d *Driver) plugAll(ctx context.Context, v *record.VM) error {
	volumes, err := d.volumes.Of(v.VMID, v.Owner)
	for i := 0; err == nil && i < len(volumes); i++ {
		err = d.plugIn(ctx, v, volumes[i])
	}
	return err
}

func (d *Driver) load(ctx context.Context, vmid uint32) error {
	return d.ask(ctx, vmid, commandTimeout, loadState)
}

func loadState(ctx context.Context, c *qmp.Client) error {
	if err := ignoreSharedMemory(ctx, c); err != nil {
		return err
	}
	uri := map[string]any{"uri": fmt.Sprintf("fd:%d", stateFile)}
	if err := c.Execute(ctx, "migrate-incoming", uri, nil); err != nil {
		return err
	}
	return migrated(ctx, c)
}

func ignoreSharedMemory(ctx context.Context, c *qmp.Client) error {
	return c.Execute(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []any{map[string]any{"capability": ignoreShared, "state": true}},
	}, nil)
}

func migrated(ctx context.Context, c *qmp.Client) error {
	for {
		done, err := c.Migrated(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "wait for the migration: %w", ctx.Err())
		case <-time.After(loadPoll):
		}
	}
}

// identity is what the seed says, and what no disk can give.
func (d *Driver) identity(v *record.VM) (channel.Identity, error) {
	image, err := d.readSeed(v.VMID)
	if err != nil {
		return channel.Identity{}, err
	}
	files, err := seediso.Parse(image)
	if err != nil {
		return channel.Identity{}, err
	}
	id := channel.Identity{MAC: v.NIC.MAC, Entropy: make([]byte, entropyBytes)}
	for _, f := range files {
		switch f.Name {
		case metaData:
			id.Seed.MetaData = f.Body
		case userData:
			id.Seed.UserData = f.Body
		case networkConfig:
			id.Seed.NetworkConfig = f.Body
		}
	}
	_, err = rand.Read(id.Entropy)
	return id, err
}

// forsake makes of a VM that was to start from memory one that boots.
func (d *Driver) forsake(ctx context.Context, v *record.VM) error {
	// Until the record says otherwise the disk is made anew with each start.
	v.Memory.Spent = true
	if err := d.store.Save(v); err != nil {
		return err
	}
	plain := *v
	plain.Memory = nil
	if err := d.freshDisk(ctx, &plain); err != nil {
		return err
	}
	d.crash("forsaken")
	v.Memory = nil
	return d.store.Save(v)
}
