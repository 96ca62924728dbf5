package launch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// askTimeout bounds what a plugin is asked once it is up.
const askTimeout = 5 * time.Second

// Asked is what a plugin says of itself before it is configured.
type Asked struct {
	Info   plugin.Info
	Schema plugin.Schema
	SHA256 string // of the binary that said so
}

// Ask starts the binary, asks what it is and what it may be configured with, and
// kills it. All the while it has no capabilities, a user that owns nothing and no
// network, whatever spec.Grant says.
func Ask(ctx context.Context, spec Spec, hostVersion string) (Asked, error) {
	sum, err := Sum(spec.Path, spec.SHA256)
	if err != nil {
		return Asked{}, fmt.Errorf("ask plugin %s: %w", spec.label(), err)
	}
	if spec.Grant, err = Tightest(spec.Path); err != nil {
		return Asked{}, err
	}
	spec.SHA256 = sum
	p, err := Start(ctx, spec)
	if err != nil {
		return Asked{}, err
	}
	defer p.drop(ctx)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := p.base.Info(ctx, hostVersion)
	if err != nil {
		return Asked{}, fmt.Errorf("ask plugin %s what it is: %w", spec.label(), err)
	}
	schema, err := p.base.Schema(ctx)
	if err != nil {
		return Asked{}, fmt.Errorf("ask plugin %s for its schema: %w", spec.label(), err)
	}
	return Asked{info, *schema, sum}, nil
}

// Tightest is for a plugin that is only asked something. owner is that of GrantOf.
func Tightest(owner string) (Grant, error) {
	return GrantOf(plugin.Confinement{User: plugin.NoUser}, owner)
}

// drop ends a process that was never configured and has nothing to finish.
func (p *Process) drop(ctx context.Context) {
	if p.child.Kill(context.WithoutCancel(ctx)) == nil {
		<-p.done
	}
}

var (
	remembered sync.Map // confinements by the SHA-256 of the binary that asked for them
	asking     sync.Map // chan struct{} by the same, closed when one who asks has ended
)

// Confine completes spec, so that Start starts just the binary that was looked
// at, with what it asks for and nothing else. The plugin is asked once for each
// content of the binary. owner is that of GrantOf.
func Confine(ctx context.Context, spec Spec, owner, hostVersion string) (Spec, plugin.Confinement, error) {
	sum, err := Sum(spec.Path, spec.SHA256)
	if err != nil {
		return spec, plugin.Confinement{}, fmt.Errorf("start plugin %s: %w", spec.label(), err)
	}
	spec.SHA256 = sum
	asks, err := wish(ctx, spec, hostVersion)
	if err != nil {
		return spec, asks, err
	}
	if spec.Grant, err = GrantOf(asks, owner); err != nil {
		return spec, asks, fmt.Errorf("start plugin %s: %w", spec.label(), err)
	}
	return spec, asks, nil
}

// wish is what the binary with spec.SHA256 asks for. A host starts several plugins
// at once, and one binary may be several of them: one asks then, and the others
// only if that did not succeed.
func wish(ctx context.Context, spec Spec, hostVersion string) (plugin.Confinement, error) {
	mine := make(chan struct{})
	if other, busy := asking.LoadOrStore(spec.SHA256, mine); busy {
		select {
		case <-other.(chan struct{}):
		case <-ctx.Done():
			return plugin.Confinement{}, fault.New(fault.ClassOf(ctx.Err()), "start plugin %s: wait for what its binary asks for: %w", spec.label(), ctx.Err())
		}
	} else {
		defer close(mine)
		defer asking.Delete(spec.SHA256)
	}
	if known, ok := remembered.Load(spec.SHA256); ok {
		return known.(plugin.Confinement), nil
	}
	asked, err := Ask(ctx, spec, hostVersion)
	if err != nil {
		return plugin.Confinement{}, err
	}
	known, _ := remembered.LoadOrStore(spec.SHA256, asked.Info.Confinement)
	return known.(plugin.Confinement), nil
}
