package guest

import (
	"context"
	"sync"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	lookEvery = 250 * time.Millisecond
	// settled is how old the world's stamp must be before the same stamp means
	// the same world.
	settled = 2 * time.Second
)

// Crowd plays the guests of all machines that are on.
type Crowd struct {
	cfg  Config
	wake chan struct{}
}

// NewCrowd makes a crowd that plays nothing until Run.
func NewCrowd(cfg Config) *Crowd { return &Crowd{cfg: cfg, wake: make(chan struct{}, 1)} }

// Wake makes Run look at the world now.
func (c *Crowd) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// turn is one power-on of one machine.
type turn struct {
	vmid uint32
	boot uint64
}

// Run follows the world until ctx ends, and returns when every guest stopped.
func (c *Crowd) Run(ctx context.Context) error {
	playing := map[turn]context.CancelFunc{}
	var guests sync.WaitGroup
	defer guests.Wait()
	var seen time.Time
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if stamp, err := c.cfg.World.Stamp(); err == nil && (stamp != seen || time.Since(stamp) < settled) {
			seen = stamp
			if err := c.follow(ctx, playing, &guests); err != nil && ctx.Err() == nil {
				c.cfg.Log.Warn("world not read", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range playing {
				stop()
			}
			return ctx.Err()
		case <-ticker.C:
		case <-c.wake:
		}
	}
}

// follow stops the guests of machines that are not on any more and starts those
// of machines that are.
func (c *Crowd) follow(ctx context.Context, playing map[turn]context.CancelFunc, guests *sync.WaitGroup) error {
	list, err := c.cfg.World.VMs(ctx)
	if err != nil {
		return err
	}
	on := map[turn]world.VM{}
	for _, vm := range list {
		if vm.Power == hypervisor.PowerOn {
			on[turn{vm.VMID, vm.Boot}] = vm
		}
	}
	for t, stop := range playing {
		if _, stays := on[t]; !stays {
			stop()
			delete(playing, t)
		}
	}
	for t, vm := range on {
		if _, already := playing[t]; already {
			continue
		}
		own, stop := context.WithCancel(ctx)
		playing[t] = stop
		guests.Go(func() {
			defer stop()
			play(own, c.cfg, vm)
		})
	}
	return nil
}
