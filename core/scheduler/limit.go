package scheduler

import (
	"context"
	"sync"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// limits bounds what goes on at one time. Clones of one template wait for each
// other's locks, and give up when too many do. VMs that start keep the processors
// busy: more of them at once are all late, and each takes longer than in its turn.
type limits struct {
	mu sync.Mutex
	// mu guards:
	slots map[string]chan struct{}
}

// of gives the slots of that name, of which there are size.
func (l *limits) of(name string, size int) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slots == nil {
		l.slots = map[string]chan struct{}{}
	}
	if l.slots[name] == nil {
		l.slots[name] = make(chan struct{}, size)
	}
	return l.slots[name]
}

func (w *work) toCreate(ctx context.Context) (release func(), err error) {
	name := "template " + w.sb.Spec.Template
	return w.acquire(ctx, name, w.limits.of(name, w.cfg.CreatesPerTemplate))
}

func (w *work) toStart(ctx context.Context) (release func(), err error) {
	const name = "other starts"
	return w.acquire(ctx, name, w.limits.of(name, w.cfg.StartsAtOnce))
}

// acquire waits for a slot; release gives it back.
func (w *work) acquire(ctx context.Context, name string, slot chan struct{}) (release func(), err error) {
	release = func() { <-slot }
	select {
	case slot <- struct{}{}:
		return release, nil
	default:
	}
	w.progress(ctx)(hypervisor.Progress{Phase: "wait for " + name, Fraction: -1})
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
