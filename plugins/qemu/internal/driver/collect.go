package driver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/template"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// keepUnused is how long a memory template stays that nobody starts from.
const keepUnused = 14 * 24 * time.Hour

// collectWait is how long somebody may use templates before they are left for later.
const collectWait = 500 * time.Millisecond

// Tidy removes what killed calls have left of memory templates and of spares, and
// templates that nobody can use, in the cache too. Another process that is building
// one is left alone.
func (d *Driver) Tidy(ctx context.Context) error {
	err := d.tidySpares(ctx)
	d.tidyCache(ctx)
	unlock, bad := tryBuildLock(ctx, d.memory)
	if errors.Is(bad, fault.Locked) {
		return err
	}
	if bad != nil {
		return errors.Join(err, bad)
	}
	defer unlock()
	return errors.Join(err, d.tidyLocked(ctx))
}

func tryBuildLock(ctx context.Context, s *memory.Store) (unlock func(), err error) {
	try, cancel := context.WithCancel(ctx)
	cancel() // one look only
	return s.LockBuild(try)
}

// tidyLocked is called with the build lock held.
func (d *Driver) tidyLocked(ctx context.Context) error {
	if err := d.endBuilder(ctx); err != nil {
		return err
	}
	return errors.Join(d.memory.Sweep(), d.collectLocked(ctx))
}

// collect removes memory templates that nobody can use, unless a VM's disk depends
// on them. It is best effort: what is left goes with a later call.
func (d *Driver) collect(ctx context.Context) {
	d.vault.Trim()
	// One that gave way to this plugin may have been killed with its spares.
	if err := d.tidySpares(ctx); err != nil {
		plugin.Log(ctx, d.log).Warn("spare guests of another plugin were not ended", "err", err)
	}
	// Whoever builds collects as well, so nobody waits for that here.
	unlock, err := tryBuildLock(ctx, d.memory)
	if errors.Is(err, fault.Locked) {
		return
	}
	if err == nil {
		defer unlock()
		err = d.collectLocked(ctx)
	}
	if err != nil {
		plugin.Log(ctx, d.log).Warn("memory templates were not collected", "err", err)
	}
}

func (d *Driver) collectLocked(ctx context.Context) error {
	keys, err := d.useless(ctx)
	if err != nil || len(keys) == 0 {
		return err
	}
	// Who makes spares has it for seconds, and the next call may collect.
	short, cancel := context.WithTimeout(ctx, collectWait)
	defer cancel()
	unlock, err := d.memory.LockUse(short, false)
	if errors.Is(err, fault.Locked) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	needed, err := d.neededMemory()
	if err != nil {
		return err
	}
	var errs []error
	for _, key := range keys {
		if slices.Contains(needed, key) {
			continue
		}
		plugin.Log(ctx, d.log).Info("memory template removed", "step", key)
		d.endSpares(ctx, d.spares.drop(key))
		errs = append(errs, d.memory.Remove(key))
		d.vault.Drop(key)
	}
	return errors.Join(errs...)
}

// discardLocked removes a template from which starts fail, in the cache too, and
// forgets that. It is called with the build lock held.
func (d *Driver) discardLocked(ctx context.Context, key string) error {
	unlock, err := d.memory.LockUse(ctx, false)
	if err != nil {
		return err
	}
	defer unlock()
	needed, err := d.neededMemory()
	if err != nil {
		return err
	}
	if slices.Contains(needed, key) {
		return fault.New(fault.Precondition, "memory template %.12s fails and cannot be made anew while disks of VMs lie on it", key).
			WithHint("destroy the vms that started from it")
	}
	if d.cache != nil {
		unlock, err := d.cache.LockBuild(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		if err := d.cache.Remove(key); err != nil {
			return err
		}
	}
	plugin.Log(ctx, d.log).Warn("memory template removed, since starts from it fail", "step", key)
	d.endSpares(ctx, d.spares.drop(key))
	if err := d.memory.Remove(key); err != nil {
		return err
	}
	d.vault.Drop(key)
	d.warming.note(key, nil)
	return nil
}

// useless gives the templates that fit nothing any more, are not whole, or have
// not been used for long. Nothing is useless while that cannot be told.
func (d *Driver) useless(ctx context.Context) ([]string, error) {
	keys, err := d.memory.List()
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	entries, err := d.catalog.List()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, key := range keys {
		t, err := d.memory.Find(key)
		switch {
		case errors.Is(err, fault.NotFound):
			out = append(out, key)
		case err != nil:
			return nil, err
		case time.Since(t.Used) > keepUnused:
			out = append(out, key)
		default:
			fits, err := d.fits(ctx, t, entries)
			if err != nil {
				return nil, err
			}
			if !fits {
				out = append(out, key)
			}
		}
	}
	return out, nil
}

// fits reports whether a VM made of one of the images now could start from t.
func (d *Driver) fits(ctx context.Context, t memory.Template, entries []template.Entry) (bool, error) {
	for _, e := range entries {
		if e.Err != nil || e.Shadowed || e.Name != t.Fit.Name {
			continue
		}
		now, err := d.fit(ctx, sized(e.Template, t.Fit.Cores, t.Fit.MemoryMiB<<20, t.Fit.DiskBytes))
		if err != nil {
			return false, err
		}
		if now.Key() == t.Key {
			return true, nil
		}
	}
	return false, nil
}

// sized is as much of a VM's record as its fit depends on.
func sized(t template.Template, cores uint32, memoryBytes, diskBytes uint64) *record.VM {
	return &record.VM{
		Template: noted(t), Cores: cores, MemoryBytes: memoryBytes, DiskBytes: max(diskBytes, t.DiskBytes),
	}
}

// neededMemory gives the templates that disks of VMs depend on. With a record that
// cannot be read nobody knows them all.
func (d *Driver) neededMemory() ([]string, error) {
	vmids, err := d.store.List()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, vmid := range vmids {
		v, err := d.store.Load(vmid)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if v.Memory != nil {
			out = append(out, v.Memory.Key)
		}
	}
	return out, nil
}
