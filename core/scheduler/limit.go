package scheduler

import (
	"context"
	"sync"
	"time"

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
	release, _, err = w.acquire(ctx, name, w.limits.of(name, w.cfg.CreatesPerTemplate))
	return release, err
}

// toStart has the guest's tokens last from now on: their time runs while it waits.
func (w *work) toStart(ctx context.Context) (release func(), err error) {
	const name = "other starts"
	release, waited, err := w.acquire(ctx, name, w.limits.of(name, w.cfg.StartsAtOnce))
	if err != nil || !waited {
		return release, err
	}
	if err := w.cfg.Store.Commit(ctx, extendTokens(w)); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// acquire waits for a slot; release gives it back.
func (w *work) acquire(ctx context.Context, name string, slot chan struct{}) (release func(), waited bool, err error) {
	release = func() { <-slot }
	select {
	case slot <- struct{}{}:
		return release, false, nil
	default:
	}
	tell := w.progress(ctx)
	long := time.NewTimer(progressEvery)
	defer long.Stop()
	for {
		select {
		case slot <- struct{}{}:
			tell(hypervisor.Progress{Phase: "no longer waiting", Fraction: -1})
			return release, true, nil
		case <-long.C:
			tell(hypervisor.Progress{Phase: "wait for " + name, Fraction: -1})
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}
