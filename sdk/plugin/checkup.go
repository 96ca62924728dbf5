package plugin

import (
	"context"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
)

const (
	healthTime = 2 * time.Second // for a question, however patient the caller is
	// healthSpare is left of it for the way back: who gets no answer takes the
	// process for one that hangs.
	healthSpare = 500 * time.Millisecond
	// hungAfter is how long one check may take before it counts as stuck: from
	// then on nobody answers in its place, and the host ends the process.
	hungAfter = 20 * time.Second
)

// checkup is one run of the instance's own health check.
type checkup struct {
	began  time.Time
	done   chan struct{} // closed once the rest is set
	health Health
	err    error
}

// checkup runs the check beside the answer, one run at a time, and answers
// itself when the check takes too long, unless it is stuck.
func (b *base) checkup(ctx context.Context, check func(context.Context) Health) (Health, error) {
	began := time.Now()
	deadline := began.Add(healthTime)
	if own, ok := ctx.Deadline(); ok && own.Before(deadline) {
		deadline = own
	}
	deadline = deadline.Add(-min(healthSpare, time.Until(deadline)/4))
	b.mu.Lock()
	run := b.running
	if run == nil {
		run = &checkup{began: began, done: make(chan struct{})}
		b.running = run
		go b.follow(ctx, deadline, run, check)
	}
	b.mu.Unlock()
	// A check that heeds its context ends a moment after it.
	over := time.NewTimer(time.Until(deadline) + healthSpare/5)
	defer over.Stop()
	select {
	case <-run.done:
		return run.health, run.err
	case <-over.C:
	}
	if began.Sub(run.began) < hungAfter {
		return Health{State: Degraded, Message: fmt.Sprintf("the plugin's health check takes longer than %s", time.Since(began).Round(100*time.Millisecond))}, nil
	}
	select {
	case <-run.done:
		return run.health, run.err
	case <-ctx.Done():
		return Health{}, ctx.Err()
	}
}

// follow makes the run. Its caller may leave: others may wait for it too.
func (b *base) follow(ctx context.Context, deadline time.Time, run *checkup, check func(context.Context) Health) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	run.err = guard(ctx, b.gate, b.log, pluginv1.PluginService_Health_FullMethodName, func() error {
		run.health = check(ctx)
		return nil
	})
	b.mu.Lock()
	b.running = nil
	b.mu.Unlock()
	close(run.done)
}
