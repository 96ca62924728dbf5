package launch

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	probeTimeout  = time.Second
	drainTimeout  = 10 * time.Second
	answerTimeout = time.Second     // for answers to arrive that the plugin has given
	closeTimeout  = 4 * time.Second // for the plugin's own clean-up
	termTimeout   = 2 * time.Second
)

// Stop ends the process: running calls finish, the plugin cleans up, and what
// does not end by itself is terminated and then killed with its whole group. It
// takes at most about 20 seconds, and about five for a plugin that no longer
// answers; when ctx ends first, the group is killed at once. The error is
// fault.Timeout when even that did not end it.
func (p *Process) Stop(ctx context.Context) error {
	steps := []func(context.Context){p.ask, p.terminate}
	for _, step := range steps {
		if p.gone() || ctx.Err() != nil {
			break
		}
		step(ctx)
	}
	p.child.signal(unix.SIGKILL)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killWait)
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fault.New(fault.Timeout, "plugin %s (process %d) does not end, though killed", p.child.spec.label(), p.PID())
	}
}

// ask drains and shuts down by calls, when the plugin answers calls at all.
func (p *Process) ask(ctx context.Context) {
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if p.probe(probe) != nil {
		return
	}
	drain, cancel := context.WithTimeout(ctx, drainTimeout+probeTimeout)
	defer cancel()
	left, err := p.base.Drain(drain, drainTimeout)
	if err != nil || left > 0 {
		p.child.spec.Log.Warn("plugin ends with calls running", "count", left, "err", err)
	}
	answered, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	p.calls.wait(answered) // the shutdown cuts what is not written yet
	shutdown, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// The server stops before it answers, so the answer says nothing.
	_ = p.conn.Invoke(shutdown, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	p.wait(ctx, closeTimeout)
}

func (p *Process) terminate(ctx context.Context) {
	p.child.cutLifeline()
	p.child.signal(unix.SIGTERM)
	p.wait(ctx, termTimeout)
}

func (p *Process) wait(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
	}
}

func (p *Process) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
