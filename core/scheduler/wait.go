package scheduler

import (
	"context"
	"time"
)

// until looks at once, after each change of the sandbox's rows, and at every
// tick, until look is satisfied or ctx ends, as it does with a cancel request. An
// error of look means that the rows could not be read now, which is no verdict on
// what is waited for.
func (w *work) until(ctx context.Context, look func(ctx context.Context) (bool, error)) error {
	wake, stop := w.cfg.Store.WatchSandbox(w.sb.ID)
	defer stop()
	tick := time.NewTicker(w.cfg.Timing.Tick)
	defer tick.Stop()
	for {
		done, err := look(ctx)
		if done {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			w.log.Warn("rows not read, will look again", "step", w.op.Step, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-tick.C:
		}
	}
}

func (w *work) cancelled(ctx context.Context) error {
	op, err := w.cfg.Store.Operation(ctx, w.op.ID)
	if err == nil && op.Cancel {
		err = errCancelled
	}
	return err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
