package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
)

// kind is how one kind of operation is done.
type kind struct {
	steps []step
	// done adds to the commit that ends the operation well.
	done func(w *work) state.Commit
	// failed adds to the commit that ends it otherwise, once all is undone;
	// w.op says why.
	failed func(w *work) state.Commit
}

// step is one named, repeatable part of an operation.
type step struct {
	name string
	// prepare is committed together with the beginning of each attempt, also of
	// one that goes on after our own end cut it off; may be nil.
	prepare func(w *work) state.Commit
	// run does it; what it returns is committed together with its success.
	run func(ctx context.Context, w *work) (state.Commit, error)
	// undo takes it back, whether it was done, half done or not begun; nil
	// when it leaves nothing.
	undo    func(ctx context.Context, w *work) error
	timeout time.Duration               // of one attempt; 0: run bounds itself
	limit   func(w *work) time.Duration // of all attempts, kept over restarts; may be nil
	retries retries
}

// work is one attempt's view of its operation.
type work struct {
	*Scheduler
	op       lab.Operation
	sb       lab.Sandbox
	log      hclog.Logger
	wake     <-chan struct{} // of what has changed since op was read
	prepared string          // the step that this life has prepared for and not called yet
	token    secret.Value    // of the attempt to create the VM
}

// jump is returned by a step that wants to go on elsewhere.
type jump struct {
	to     string // name of a step
	commit state.Commit
	cause  error // nil when nothing went wrong
}

func (j *jump) Error() string { return fmt.Sprintf("go to %s: %v", j.to, j.cause) }

// errCancelled is returned by a step that noticed that the operation shall stop.
var errCancelled = errors.New("cancelled")

// drive takes the operation on until it has ended, ctx ends or the store fails.
func (s *Scheduler) drive(ctx context.Context, op lab.Operation) error {
	wake, stop := s.cfg.Store.WatchSandbox(op.Subject)
	defer stop()
	w := &work{Scheduler: s, wake: wake}
	for ctx.Err() == nil {
		select {
		case <-wake: // of what is read now
		default:
		}
		var err error
		if w.op, err = s.cfg.Store.Operation(ctx, op.ID); err != nil {
			return err
		}
		if w.op.State.Ended() {
			return nil
		}
		k, ok := s.kinds[w.op.Kind]
		if !ok {
			return fault.New(fault.Internal, "operation kind %q is not known", w.op.Kind)
		}
		if w.sb, err = s.cfg.Store.Sandbox(ctx, w.op.Subject); err != nil {
			return err
		}
		w.log = s.log.With("operation", w.op.ID, "sandbox", w.sb.ID, "vmid", w.sb.VMID)
		// Conflict: an input came in between, above all a cancel request.
		if err := w.advance(ctx, k); err != nil && !errors.Is(err, fault.Conflict) {
			return err
		}
	}
	return ctx.Err()
}

// advance does one thing: waits for a retry's time, runs a step, or undoes one.
func (w *work) advance(ctx context.Context, k kind) error {
	stops := w.op.Cancel && w.op.State != lab.OpUndoing // needs no further attempt
	if wait := time.Until(w.op.NotBefore); wait > 0 && !stops {
		if err := w.pause(ctx, wait); err != nil {
			return err
		}
	}
	switch {
	case w.op.State == lab.OpUndoing:
		return w.undoOne(ctx, k)
	case stops:
		return w.fail(ctx, k, errCancelled)
	case w.op.StepIndex >= len(k.steps):
		return w.end(ctx, lab.OpDone, k.done)
	}
	return w.runOne(ctx, k, k.steps[w.op.StepIndex])
}

// pause waits for a retry's time, but not past a cancel request.
func (w *work) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-w.wake:
			op, err := w.cfg.Store.Operation(ctx, w.op.ID)
			if err != nil {
				return err
			}
			if op.Cancel != w.op.Cancel {
				return fault.New(fault.Conflict, "operation %s is cancelled", op.ID)
			}
		}
	}
}

func (w *work) runOne(ctx context.Context, k kind, st step) error {
	if !w.hasBegun(st) {
		if err := w.begin(ctx, st, nil); err != nil {
			return err
		}
	}
	w.prepared = ""
	began := time.Now()
	w.log.Debug("step begins", "step", w.op.Step, "attempt", w.op.Attempt)
	commit, err := w.call(ctx, st)
	if ctx.Err() != nil {
		return ctx.Err() // as in a crash: the next start calls the step again
	}
	var to *jump
	switch {
	case err == nil:
		return w.succeed(ctx, k, commit, time.Since(began))
	case errors.As(err, &to):
		return w.follow(ctx, k, to, time.Since(began))
	case !errors.Is(err, errCancelled) && st.retries.again(err, w.op.Attempt):
		return w.retry(ctx, err)
	}
	return w.fail(ctx, k, err)
}

// call runs the step under its timeout, and cuts it off when the operation is
// cancelled meanwhile: the undo covers what is half done.
func (w *work) call(ctx context.Context, st step) (state.Commit, error) {
	cancellable, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer w.onCancel(cancellable, func() { cancel(errCancelled) })()
	runCtx := cancellable
	if st.timeout > 0 {
		var stop context.CancelFunc
		runCtx, stop = context.WithTimeout(cancellable, st.timeout)
		defer stop()
	}
	c, err := st.run(w.onBehalf(runCtx), w)
	if err != nil && errors.Is(context.Cause(cancellable), errCancelled) {
		err = errCancelled
	}
	return c, err
}

// onBehalf lets plugins put the operation into their logs.
func (w *work) onBehalf(ctx context.Context) context.Context {
	return plugin.WithCall(ctx, plugin.Call{Operation: w.op.ID, Step: w.op.Step, Attempt: w.op.Attempt})
}

// onCancel calls f once the operation is cancelled, until stop, which waits. The
// row was read just now, so it looks when that changes, and at every tick.
func (w *work) onCancel(ctx context.Context, f func()) (stop func()) {
	ctx, end := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(w.cfg.Timing.Tick)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			case <-tick.C:
			}
			if errors.Is(w.cancelled(ctx), errCancelled) {
				f()
				return
			}
		}
	})
	return func() {
		end()
		watch.Wait()
	}
}

// begin commits that an attempt of the step starts, before anything is called.
func (w *work) begin(ctx context.Context, st step, fields map[string]string) error {
	return w.enter(ctx, st, w.op, state.Commit{}, fields)
}

// enter commits c, which led the operation to where now says, together with the
// beginning of an attempt of the step there: each commit waits for the disk.
func (w *work) enter(ctx context.Context, st step, now lab.Operation, c state.Commit, fields map[string]string) error {
	now, started := w.entering(st, now, fields)
	c.Events = append(c.Events, started)
	if st.prepare != nil {
		c = merge(c, st.prepare(w))
	}
	if err := w.commit(ctx, now, c); err != nil {
		return err
	}
	w.prepared = st.name
	return nil
}

// entering is the operation as it begins an attempt of the step, and the event.
// An attempt that our own end cut off goes on under its number: only what failed,
// and so has a time before which it is not tried again, counts against the retries.
func (w *work) entering(st step, now lab.Operation, fields map[string]string) (lab.Operation, lab.Event) {
	if now.State == lab.OpPending {
		now.State = lab.OpRunning
	}
	if now.Attempt == 0 {
		now.Deadline = time.Time{}
		if st.limit != nil {
			now.Deadline = time.Now().Add(st.limit(w))
		}
	}
	now.Step = st.name
	if cutOff := now.Attempt > 0 && now.NotBefore.IsZero(); !cutOff {
		now.Attempt++
	}
	now.NotBefore = time.Time{}
	return now, w.event(lab.EventStepStarted, now, "", with(fields, "attempt", strconv.Itoa(now.Attempt)))
}

// hasBegun reports whether the row says that an attempt of the step starts, and all
// is there for it.
func (w *work) hasBegun(st step) bool {
	return w.op.Step == st.name && w.op.Attempt > 0 && w.op.NotBefore.IsZero() && (st.prepare == nil || w.prepared == st.name)
}

// succeed commits the step's result and, in the same transaction, begins the next
// step or ends the operation.
func (w *work) succeed(ctx context.Context, k kind, c state.Commit, took time.Duration) error {
	c.Events = append(c.Events, w.event(lab.EventStepFinished, w.op, "", tookField(took)))
	now := w.op
	now.StepIndex++
	now.Attempt = 0
	now.Error, now.ErrorClass, now.Hint = "", "", ""
	if now.StepIndex < len(k.steps) {
		return w.enter(ctx, k.steps[now.StepIndex], now, c, nil)
	}
	now.State = lab.OpDone
	return w.commit(ctx, now, merge(c, k.done(w), state.Commit{Events: []lab.Event{w.ended(now)}}))
}

// follow commits a jump, and begins the step that it leads to.
func (w *work) follow(ctx context.Context, k kind, to *jump, took time.Duration) error {
	event := w.event(lab.EventStepFinished, w.op, "", tookField(took))
	if to.cause != nil {
		event = w.failure(to.cause, nil)
	}
	now := w.op
	now.Attempt = 0
	for i, st := range k.steps {
		if st.name == to.to {
			now.StepIndex = i
		}
	}
	c := to.commit
	c.Events = append(c.Events, event)
	return w.enter(ctx, k.steps[now.StepIndex], now, c, nil)
}

// retry commits that the attempt failed and when the next may begin.
func (w *work) retry(ctx context.Context, cause error) error {
	pause := w.backoff(w.op.Attempt)
	w.log.Warn("step failed, will be tried again", "step", w.op.Step, "attempt", w.op.Attempt, "err", cause)
	now := w.op
	now.NotBefore = time.Now().Add(pause)
	now.Error, now.ErrorClass, now.Hint = describe(cause)
	return w.commit(ctx, now, state.Commit{Events: []lab.Event{
		w.failure(cause, map[string]string{"retry_ms": strconv.FormatInt(pause.Milliseconds(), 10)}),
	}})
}

// end commits the operation's last state with what its kind adds.
func (w *work) end(ctx context.Context, to lab.OperationState, add func(*work) state.Commit) error {
	now := w.op
	now.State = to
	return w.commit(ctx, now, merge(add(w), state.Commit{Events: []lab.Event{w.ended(now)}}))
}

// commit writes the operation's change with c, and on success makes it w.op.
func (w *work) commit(ctx context.Context, now lab.Operation, c state.Commit) error {
	c.Operations = append(c.Operations, state.OperationChange{Was: w.op, Now: now})
	if err := w.cfg.Store.Commit(ctx, c); err != nil {
		return err
	}
	w.op = now
	return nil
}
