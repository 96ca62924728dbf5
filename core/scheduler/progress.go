package scheduler

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// progressEvery is how often a step tells how far it is, and how long it has
// been at work when it first does.
const progressEvery = 250 * time.Millisecond

// progress gives a function that writes events about the present step, at most
// one each progressEvery. What comes too soon, or while one is being written,
// is left out, so that a driver is never held up.
func (w *work) progress(ctx context.Context) func(hypervisor.Progress) {
	var mu sync.Mutex
	last := time.Now()
	op := w.op
	return func(p hypervisor.Progress) {
		if !mu.TryLock() {
			return
		}
		defer mu.Unlock()
		if time.Since(last) < progressEvery {
			return
		}
		last = time.Now()
		fields := map[string]string{"phase": p.Phase}
		if p.Fraction >= 0 {
			fields["fraction"] = strconv.FormatFloat(min(p.Fraction, 1), 'f', 3, 64)
		}
		if p.BytesTotal > 0 {
			fields["bytes_done"] = strconv.FormatUint(p.BytesDone, 10)
			fields["bytes_total"] = strconv.FormatUint(p.BytesTotal, 10)
		}
		if err := w.cfg.Store.AppendEvent(ctx, w.event(lab.EventStepProgressed, op, p.Phase, fields)); err != nil && ctx.Err() == nil {
			w.log.Warn("progress not recorded", "err", err)
		}
	}
}
