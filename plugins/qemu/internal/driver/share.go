package driver

import (
	"context"
	"errors"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// cacheTimeout is for what others do with the cache meanwhile, and for a copy from or
// to another file system.
const cacheTimeout = time.Minute

// adopt takes over a template that another state folder of this host has made, if
// that takes no time. fault.NotFound when it does not, fault.Locked while something
// is built here or changed there.
func (d *Driver) adopt(ctx context.Context, key string) (memory.Template, error) {
	none := memory.Template{}
	if d.cache == nil {
		return none, fault.New(fault.NotFound, "there is no cache of memory templates")
	}
	if _, err := d.cache.Find(key); err != nil {
		return none, err
	}
	unlock, err := tryBuildLock(ctx, d.memory)
	if err != nil {
		return none, err
	}
	defer unlock()
	unlockCache, err := tryBuildLock(ctx, d.cache)
	if err != nil {
		return none, err
	}
	defer unlockCache()
	err = d.cache.Link(d.memory, key)
	if errors.Is(err, fault.Unsupported) {
		// The build that comes after the boot copies it.
		return none, fault.New(fault.NotFound, "memory template %s is on another file system", key)
	}
	if err != nil {
		return none, err
	}
	// A failure only makes the cache forget it earlier.
	_ = d.cache.MarkUsed(key)
	return d.memory.Find(key)
}

// adoptLocked is called with the build lock held, by what would make the template
// otherwise.
func (d *Driver) adoptLocked(ctx context.Context, key string) (memory.Template, error) {
	none := memory.Template{}
	if d.cache == nil {
		return none, fault.New(fault.NotFound, "there is no cache of memory templates")
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	unlock, err := d.cache.LockBuild(ctx)
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := d.cache.Share(ctx, d.memory, key); err != nil {
		return none, err
	}
	_ = d.cache.MarkUsed(key)
	return d.memory.Find(key)
}

// publish offers a template that was made here to other state folders. It is best
// effort: those make their own.
func (d *Driver) publish(ctx context.Context, key string) {
	if d.cache == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	unlock, err := d.cache.LockBuild(ctx)
	if err == nil {
		defer unlock()
		d.prune(ctx)
		err = d.memory.Share(ctx, d.cache, key)
	}
	if err != nil {
		plugin.Log(ctx, d.log).Warn("memory template was not put into the cache", "err", err)
	}
}

// tidyCache removes what nobody can use from the cache, unless somebody is at it.
func (d *Driver) tidyCache(ctx context.Context) {
	if d.cache == nil {
		return
	}
	unlock, err := tryBuildLock(ctx, d.cache)
	if err == nil {
		defer unlock()
		d.prune(ctx)
	} else if !errors.Is(err, fault.Locked) {
		plugin.Log(ctx, d.log).Warn("cache of memory templates was not pruned", "err", err)
	}
}

// prune is called with the cache's build lock held.
func (d *Driver) prune(ctx context.Context) {
	if err := d.cache.Prune(keepUnused); err != nil {
		plugin.Log(ctx, d.log).Warn("cache of memory templates was not pruned", "err", err)
	}
}
