package driver

import (
	"context"
	"sync"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/sdk/fault"
)

// keyed is one lock per VMID. Unlike a mutex it can be waited for with a
// deadline.
type keyed struct {
	mu    sync.Mutex // mu guards: slots
	slots map[uint32]chan struct{}
}

func (k *keyed) lock(ctx context.Context, vmid uint32) (unlock func(), err error) {
	k.mu.Lock()
	if k.slots == nil {
		k.slots = map[uint32]chan struct{}{}
	}
	slot, ok := k.slots[vmid]
	if !ok {
		slot = make(chan struct{}, 1)
		k.slots[vmid] = slot
	}
	k.mu.Unlock()
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Locked, "monitor of vm %d is busy: %w", vmid, ctx.Err())
	}
}

// ask runs do with a connection to the VM's monitor, in at most limit.
func (d *Driver) ask(
	ctx context.Context, vmid uint32, limit time.Duration, do func(ctx context.Context, c *qmp.Client) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	unlock, err := d.monitors.lock(ctx, vmid)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := qmp.Dial(ctx, d.store.Dir(vmid), monitorName)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

// command runs commands of no argument and no answer, in order.
func (d *Driver) command(ctx context.Context, vmid uint32, names ...string) error {
	return d.ask(ctx, vmid, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		for _, name := range names {
			if err := c.Execute(ctx, name, nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// status asks a running QEMU how its guest stands.
func (d *Driver) status(ctx context.Context, vmid uint32) (string, error) {
	var out string
	err := d.ask(ctx, vmid, d.monitorWait, func(ctx context.Context, c *qmp.Client) (err error) {
		out, err = c.Status(ctx)
		return err
	})
	return out, err
}
