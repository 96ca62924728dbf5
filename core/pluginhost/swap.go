package pluginhost

import (
	"context"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// retirePatience is how long a process that was replaced may take for the calls
// that it has: more than any call gets, of which CreateVM gets most, 10 minutes.
// One that takes longer is told to drain, as at a stop.
const retirePatience = 11 * time.Minute

// gapPatience is the same for one that must end before the next is configured:
// other calls wait meanwhile.
const gapPatience = 10 * time.Second

// request asks run to take a new process in place of its own.
type request struct {
	next      *upProcess
	exclusive bool // next is not configured: the old process must end first
	done      chan error
}

// start prepares a process by the block, beside any that serves, as far as the
// plugin allows; runs says that run is there to do the rest. On an error nothing
// is left of it.
func (i *instance) start(ctx context.Context, b Block, runs bool) (*request, error) {
	next, err := i.starter.prepare(ctx, i, b)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	exclusive := next.info.Exclusive || i.info.Exclusive || i.current != nil && !i.current.sharesDir(next)
	i.mu.Unlock()
	r := &request{next: next, exclusive: exclusive, done: make(chan error, 1)}
	if exclusive && runs {
		return r, nil
	}
	if err := i.settle(ctx, next); err != nil {
		next.abandon(ctx, i)
		return nil, err
	}
	return r, nil
}

// sharesDir reports whether both may use the state folder at the same time: it
// belongs to one user, and configure gives it to that of the process.
func (up *upProcess) sharesDir(next *upProcess) bool {
	return up.grant.UID == next.grant.UID && up.grant.GID == next.grant.GID
}

// settle configures a process and sees that it answers.
func (i *instance) settle(ctx context.Context, next *upProcess) error {
	if err := i.starter.configure(ctx, i, next); err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if _, err := next.health(asked); err != nil {
		return fmt.Errorf("check the new process of plugin %s: %w", i.label(), err)
	}
	return nil
}

// hand gives the process to run. On an error it is ended, or, when ctx ended
// while run was at it, run goes on: who stops the host waits for no gap.
func (i *instance) hand(ctx context.Context, r *request) error {
	select {
	case i.requests <- r:
	case <-ctx.Done():
		r.next.abandon(ctx, i)
		return fault.New(fault.ClassOf(ctx.Err()), "replace the process of plugin %s: %w", i.label(), ctx.Err())
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fault.New(fault.ClassOf(ctx.Err()), "replace the process of plugin %s: %w", i.label(), ctx.Err())
	}
}

// replace puts the requested process in the place of old, which may be nil, and
// gives it; nil when it did not come to that, and old is gone too.
func (i *instance) replace(ctx context.Context, old *upProcess, r *request) *upProcess {
	if r.exclusive {
		err := i.vacate(ctx, old)
		if err == nil {
			err = i.settle(ctx, r.next)
		}
		if err != nil {
			r.next.abandon(ctx, i)
			r.done <- err
			return nil
		}
	}
	i.pace = pace{}
	i.serve(r.next)
	if old != nil && !r.exclusive {
		i.retiring.Go(func() {
			drained, cancel := context.WithTimeout(ctx, retirePatience)
			defer cancel()
			old.traffic.drained(drained)
			_ = i.finish(ctx, old)
		})
	}
	r.done <- nil
	return r.next
}

// vacate ends old, which may be nil, so that another process may be configured;
// the error says that one is there that does not end.
func (i *instance) vacate(ctx context.Context, old *upProcess) error {
	if old != nil {
		i.hold()
		drained, cancel := context.WithTimeout(ctx, gapPatience)
		old.traffic.drained(drained)
		cancel()
		if i.finish(ctx, old) != nil {
			i.stuck = old
		}
	}
	if i.stuck != nil && !i.stuck.gone() {
		return fault.New(fault.Unavailable, "the old process %d of plugin %s does not end", i.stuck.process.PID(), i.label())
	}
	i.stuck = nil
	return nil
}

// hold makes calls wait, for as long as they may take.
func (i *instance) hold() {
	i.change(func() {
		i.current, i.held = nil, true
		i.enter(Starting)
		i.status.Reason, i.status.PID = "", 0
	})
}

// finish ends a process in good order.
func (i *instance) finish(ctx context.Context, old *upProcess) error {
	err := old.end(ctx)
	if err != nil {
		i.log.Error("plugin's old process stays", "plugin", i.label(), "pid", old.process.PID(), "err", err)
	} else {
		i.log.Info("plugin's old process has ended", "plugin", i.label(), "pid", old.process.PID())
	}
	return err
}
