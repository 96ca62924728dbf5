package hostcalls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/assume"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/diskuse"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/rehearse"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/rootexec"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/settle"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/vport"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/version"
)

const (
	// retryWait is between two attempts to open the port, portWait how long a
	// port is expected to come at all.
	retryWait = time.Second
	portWait  = time.Minute
)

// Guest is what the host speaks to.
type Guest struct {
	layout layout.Layout
	log    hclog.Logger
	assume func(ctx context.Context, id channel.Identity, received time.Time) (channel.Assumed, error)
	// rehearsal is given the entropy.
	rehearsal func(ctx context.Context, entropy []byte) error
	own       chan struct{} // closed when this guest may use its identity

	rehearsing sync.Mutex // held by who rehearses, or begins to assume an identity

	mu sync.Mutex
	// mu guards:
	phase channel.Phase
	given *given // nil: no identity yet
}

// given is an identity that the host gave, and what became of it.
type given struct {
	mac  string
	seed channel.Seed
	done chan struct{} // closed when the rest is known
	out  channel.Assumed
	err  error
}

// New finds out what this guest is. With serve it does, once it is of somebody, what
// it rehearses.
func New(l layout.Layout, log hclog.Logger, serve rehearse.Serve) *Guest {
	g := &Guest{layout: l, log: log, phase: channel.PhaseServing, own: make(chan struct{})}
	g.assume = func(ctx context.Context, id channel.Identity, received time.Time) (channel.Assumed, error) {
		kernel, done := assume.Real(l)
		defer done()
		return assume.Run(ctx, assume.Config{Layout: l, Kernel: kernel, Log: log}, id, received)
	}
	g.rehearsal = func(ctx context.Context, entropy []byte) error {
		return rehearse.Run(ctx, rehearse.Config{Layout: l, Entropy: entropy, Serve: serve, SSHD: rehearse.SSHD})
	}
	mark, err := os.ReadFile(l.TemplateMark())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		close(g.own)
	case string(mark) == layout.NamedMark: // this program began anew
		g.phase = channel.PhaseNamed
	default:
		g.phase = channel.PhaseTemplate
	}
	return g
}

// AwaitIdentity returns when this guest is of somebody and may act for them: at
// once, but for a template.
func (g *Guest) AwaitIdentity(ctx context.Context) error {
	select {
	case <-g.own:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Serve answers the host until ctx ends. A VM without the port has nothing to
// answer.
func (g *Guest) Serve(ctx context.Context) {
	rootexec.Sweep(g.layout)
	for began := time.Now(); ctx.Err() == nil; {
		port, err := vport.Open(g.layout, channel.Port)
		switch {
		case err == nil:
			err = channel.Serve(ctx, port, g)
			began = time.Now()
		case errors.Is(err, fault.NotFound) && time.Since(began) > portWait:
			g.log.Info("the host cannot speak to this guest", "err", err)
			return
		}
		if err != nil && !errors.Is(err, fault.NotFound) {
			g.log.Warn("channel to the host", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryWait):
		}
	}
}

// State tells what this guest is.
func (g *Guest) State() channel.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return channel.State{Phase: g.phase, Runner: version.String()}
}

// Settle returns when this template may be frozen.
func (g *Guest) Settle(ctx context.Context) error {
	if g.State().Phase != channel.PhaseTemplate {
		return notTemplate()
	}
	return settle.Run(ctx, g.layout, g.log, func() error { return assume.Rehearse(ctx, g.layout) })
}

// Rehearse does what a template's copy will do as somebody's guest, and leaves it
// what it was.
func (g *Guest) Rehearse(ctx context.Context, entropy []byte) error {
	g.rehearsing.Lock()
	defer g.rehearsing.Unlock()
	g.mu.Lock()
	nameless := g.phase == channel.PhaseTemplate && g.given == nil
	g.mu.Unlock()
	if !nameless {
		return notTemplate()
	}
	return g.rehearsal(ctx, entropy)
}

// Assume gives this guest its identity, once: a host that asks again, because it
// did not live to hear the answer, gets the same one. So it goes on to its end
// though nobody waits.
func (g *Guest) Assume(ctx context.Context, id channel.Identity) (channel.Assumed, error) {
	received := time.Now()
	g.rehearsing.Lock() // what a rehearsal takes off again would be of somebody
	g.mu.Lock()
	now := g.given
	first := now == nil && g.phase == channel.PhaseTemplate
	if first {
		now = &given{mac: id.MAC, seed: id.Seed, done: make(chan struct{})}
		g.given = now
	}
	g.mu.Unlock()
	g.rehearsing.Unlock()
	if first {
		now.out, now.err = g.assume(context.WithoutCancel(ctx), id, received)
		g.become(now)
	}
	if now == nil || now.mac != id.MAC || !reflect.DeepEqual(now.seed, id.Seed) {
		return channel.Assumed{}, notTemplate()
	}
	select {
	case <-now.done:
		return now.out, now.err
	case <-ctx.Done():
		return channel.Assumed{}, ctx.Err()
	}
}

// become makes it known what came of an identity.
func (g *Guest) become(now *given) {
	defer close(now.done)
	if now.err != nil {
		g.log.Error("identity is not complete", "err", now.err)
		return
	}
	g.mu.Lock()
	g.phase = channel.PhaseNamed
	g.mu.Unlock()
}

// Go lets this guest use its identity. Until then its host may throw it away and
// give another the same one, so nothing of it may be spent. A host that asks again,
// because it did not live to hear the answer, gets the same one.
func (g *Guest) Go(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.phase {
	case channel.PhaseServing:
		return nil
	case channel.PhaseTemplate:
		return fault.New(fault.Precondition, "this guest has no identity yet")
	}
	if err := os.Remove(g.layout.TemplateMark()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove mark of a template: %w", err)
	}
	g.phase = channel.PhaseServing
	close(g.own)
	return nil
}

func notTemplate() error {
	return fault.New(fault.Precondition, "this guest is no memory template")
}

// Busy lists the users of a disk.
func (g *Guest) Busy(ctx context.Context, serial string) ([]string, error) {
	return diskuse.Of(ctx, g.layout, serial)
}

// Exec runs a program as root, unless copies of this guest would have what it
// leaves, or another may yet take this one's place.
func (g *Guest) Exec(ctx context.Context, e channel.Exec, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if g.State().Phase != channel.PhaseServing {
		return 0, fault.New(fault.Precondition, "nothing runs in a memory template, nor in a copy before its host lets it go")
	}
	return rootexec.Run(ctx, g.layout, e, stdin, stdout, stderr)
}
