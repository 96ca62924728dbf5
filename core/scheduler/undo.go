package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// undoInternal is how often an undo is tried again after errors that should not
// happen. Those that pass by themselves are tried without end: giving up leaks.
const undoInternal = 10

// fail starts the undo of the steps begun so far, or ends the operation when
// there is nothing to undo.
func (w *work) fail(ctx context.Context, k kind, cause error) error {
	now := w.op
	c := state.Commit{}
	if errors.Is(cause, errCancelled) {
		now.Error, now.ErrorClass, now.Hint = "cancelled", string(fault.Conflict), ""
	} else {
		now.Error, now.ErrorClass, now.Hint = describe(fmt.Errorf("%s: %w", w.op.Step, cause))
		c.Events = append(c.Events, w.failure(cause, nil))
		w.log.Error("step failed", "step", w.op.Step, "attempt", w.op.Attempt, "err", cause)
	}
	if w.op.State == lab.OpPending || !undoes(k, now.StepIndex) {
		was := w.op
		now.State = w.outcome()
		w.op = now // what the kind adds says why
		add := k.failed(w)
		w.op = was
		return w.commit(ctx, now, merge(c, add, state.Commit{Events: []lab.Event{w.ended(now)}}))
	}
	now.State = lab.OpUndoing
	now.Attempt = 0
	now.NotBefore, now.Deadline = time.Time{}, time.Time{}
	if now.StepIndex >= len(k.steps) {
		now.StepIndex = len(k.steps) - 1
	}
	return w.commit(ctx, now, c)
}

// outcome is the state in which an operation ends that did not succeed.
func (w *work) outcome() lab.OperationState {
	if w.op.Cancel {
		return lab.OpCancelled
	}
	return lab.OpFailed
}

func undoes(k kind, index int) bool {
	for i, st := range k.steps {
		if i <= index && st.undo != nil {
			return true
		}
	}
	return false
}

// undoOne takes back the step at StepIndex and moves one down; below the first
// the operation ends.
func (w *work) undoOne(ctx context.Context, k kind) error {
	if w.op.StepIndex < 0 {
		return w.end(ctx, w.outcome(), k.failed)
	}
	st := k.steps[w.op.StepIndex]
	below := w.op
	below.StepIndex--
	below.Attempt = 0
	if st.undo == nil {
		return w.commit(ctx, below, state.Commit{})
	}
	undo := map[string]string{"undo": "true"}
	if err := w.begin(ctx, step{name: st.name}, undo); err != nil {
		return err
	}
	began := time.Now()
	callCtx, cancel := context.WithTimeout(ctx, w.cfg.Timing.CallTimeout)
	err := st.undo(w.onBehalf(callCtx), w)
	cancel()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	below.Step = w.op.Step
	switch {
	case err == nil:
		return w.commit(ctx, below, state.Commit{Events: []lab.Event{
			w.event(lab.EventStepFinished, w.op, "", with(tookField(time.Since(began)), "undo", "true")),
		}})
	case w.hopeless(err):
		w.log.Error("undo given up", "step", w.op.Step, "attempt", w.op.Attempt, "err", err)
		return w.commit(ctx, below, state.Commit{Events: []lab.Event{w.failure(err, undo)}})
	}
	w.log.Warn("undo failed, will be tried again", "step", w.op.Step, "attempt", w.op.Attempt, "err", err)
	now := w.op
	now.NotBefore = time.Now().Add(w.backoff(w.op.Attempt))
	return w.commit(ctx, now, state.Commit{Events: []lab.Event{w.failure(err, undo)}})
}

// hopeless reports whether trying an undo again would only fail again.
func (w *work) hopeless(err error) bool {
	switch fault.ClassOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Locked, fault.Conflict, fault.Exhausted:
		return false
	case fault.Internal:
		return w.op.Attempt >= undoInternal
	}
	return true
}
