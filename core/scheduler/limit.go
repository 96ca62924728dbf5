package scheduler

import (
	"context"
	"sync"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// limits bounds how many VMs are made from one template at a time: clones of
// one template wait for each other's locks, and give up when too many do.
type limits struct {
	size int

	mu sync.Mutex
	// mu guards:
	slots map[string]chan struct{}
}

func (l *limits) of(template string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slots == nil {
		l.slots = map[string]chan struct{}{}
	}
	if l.slots[template] == nil {
		l.slots[template] = make(chan struct{}, l.size)
	}
	return l.slots[template]
}

// acquire waits for a slot of the template; release gives it back.
func (w *work) acquire(ctx context.Context, template string) (release func(), err error) {
	slot := w.limits.of(template)
	release = func() { <-slot }
	select {
	case slot <- struct{}{}:
		return release, nil
	default:
	}
	w.progress(ctx)(hypervisor.Progress{Phase: "wait for template " + template, Fraction: -1})
	wake, stop := w.cfg.Store.WatchSandbox(w.sb.ID)
	defer stop()
	for {
		if err := w.cancelled(ctx); err != nil {
			return nil, err
		}
		select {
		case slot <- struct{}{}:
			return release, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wake:
		}
	}
}
