package driver

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// publishTimeout is for what others do with the cache meanwhile.
const publishTimeout = time.Minute

// adopt takes over a template that another state folder of this host has made.
// fault.NotFound when there is none, fault.Locked while something is built here.
func (d *Driver) adopt(ctx context.Context, key string) (memory.Template, error) {
	if d.cache == nil {
		return memory.Template{}, fault.New(fault.NotFound, "there is no cache of memory templates")
	}
	if _, err := d.cache.Find(key); err != nil {
		return memory.Template{}, err
	}
	unlock, err := d.tryBuildLock(ctx)
	if err != nil {
		return memory.Template{}, err
	}
	defer unlock()
	return d.adoptLocked(key)
}

// adoptLocked is called with the build lock held.
func (d *Driver) adoptLocked(key string) (memory.Template, error) {
	if d.cache == nil {
		return d.memory.Find(key)
	}
	if err := d.cache.Share(d.memory, key); err != nil {
		return memory.Template{}, err
	}
	// A failure only makes the cache forget it earlier.
	_ = d.cache.MarkUsed(key)
	return d.memory.Find(key)
}

// publish offers a template that was made here to other state folders. It is best
// effort: those make their own.
func (d *Driver) publish(ctx context.Context, key string) {
	if d.cache == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	unlock, err := d.cache.LockBuild(ctx)
	if err == nil {
		defer unlock()
		if err := d.cache.Prune(keepUnused); err != nil {
			plugin.Log(ctx, d.log).Warn("cache of memory templates was not pruned", "err", err)
		}
		err = d.memory.Share(d.cache, key)
	}
	if err != nil {
		plugin.Log(ctx, d.log).Warn("memory template was not put into the cache", "err", err)
	}
}
