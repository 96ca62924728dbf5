package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/network"
)

// portCrash is the state of one check on policies.
type portCrash struct {
	crashing[network.Driver]
	suite *networkSuite
}

// NetworkCrashes checks a network whose process dies.
func NetworkCrashes(b Binary, opts NetworkOptions) []Check {
	if opts.Host.Bridge == "" {
		opts.Host = DefaultHost
	}
	s := &networkSuite{open: b.Network(), opts: opts, run: unique()}
	return bind(b.Kind, portCrashRules, func(ctx context.Context, _ Rule, fn func(*portCrash, context.Context) error) error {
		return fn(&portCrash{
			crashing[network.Driver]{b, func(p *launch.Process) network.Driver { return network.NewClient(p.Conn()) }}, s,
		}, ctx)
	})
}

var portCrashRules = []ruled[*portCrash]{
	changes("network.killed-in-attach", 3, "kills the process at six moments of an attach, and attaches again",
		"A repeated call has one effect.", (*portCrash).inAttach),
	changes("network.killed-in-detach", 3, "kills the process at six moments of a detach, and detaches again",
		"Removes rules and the tap that Attach made. Gone is success.", (*portCrash).inDetach),
	changes("network.crowd", 3, "attaches and detaches 32 sandboxes at the same time",
		"Calls on one sandbox are serialised by the core; others are concurrent.", (*portCrash).crowd),
	changes("network.attach-without-tools", 3, "attaches with a PATH that lacks its tools, and then with them",
		"if a part cannot be enforced the call fails and nothing changes.", (*portCrash).withoutTools),
}

// each runs fn as a check of the suite's fixture, whose own process ends before.
func (c *portCrash) each(ctx context.Context, fn func(p *ports, req network.AttachRequest) error) error {
	return c.suite.check(ctx, Rule{Changes: true}, func(p *ports, ctx context.Context) error {
		req := p.request(0)
		p.process.close()
		p.process.done = func() {}
		err := fn(p, req)
		next, openErr := p.open.first(ctx)
		if openErr == nil {
			*p.process = *next
			p.Driver = next.driver
		}
		return errors.Join(err, openErr)
	})
}

// on is the fixture with another driver.
func (p *ports) on(d network.Driver) *ports { return &ports{networkSuite: p.networkSuite, Driver: d} }

// detached detaches a sandbox and looks whether it is.
func (p *ports) detached(ctx context.Context, id string) error {
	if err := p.Detach(ctx, id); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return p.none(ctx, id)
}

func (c *portCrash) inAttach(ctx context.Context) error {
	return c.each(ctx, func(p *ports, req network.AttachRequest) error {
		took, err := c.time(ctx, func(d network.Driver) error { return p.on(d).put(ctx, req) })
		if err != nil {
			return err
		}
		return atEachMoment(took, func(after time.Duration) error {
			if err := c.with(ctx, func(d network.Driver) error { return p.on(d).detached(ctx, req.SandboxID) }); err != nil {
				return err
			}
			err := c.killed(ctx, after, func(d network.Driver, _ func()) error { _, err := d.Attach(ctx, req); return err })
			return errors.Join(err, c.with(ctx, func(d network.Driver) error { return p.on(d).put(ctx, req) }))
		})
	})
}

func (c *portCrash) inDetach(ctx context.Context) error {
	return c.each(ctx, func(p *ports, req network.AttachRequest) error {
		put := func(d network.Driver) error { return p.on(d).put(ctx, req) }
		if err := c.with(ctx, put); err != nil {
			return err
		}
		took, err := c.time(ctx, func(d network.Driver) error { return p.on(d).detached(ctx, req.SandboxID) })
		if err != nil {
			return err
		}
		return atEachMoment(took, func(after time.Duration) error {
			if err := c.with(ctx, put); err != nil {
				return err
			}
			err := c.killed(ctx, after, func(d network.Driver, _ func()) error { return d.Detach(ctx, req.SandboxID) })
			return errors.Join(err, c.with(ctx, func(d network.Driver) error { return p.on(d).detached(ctx, req.SandboxID) }))
		})
	})
}

func (c *portCrash) crowd(ctx context.Context) error {
	return c.suite.check(ctx, Rule{Changes: true}, func(p *ports, ctx context.Context) error {
		var reqs []network.AttachRequest
		for n := range crowd {
			reqs = append(reqs, p.request(n))
		}
		errs := make([]error, crowd)
		all := func(call func(req network.AttachRequest) error) error {
			var wg sync.WaitGroup
			for i, req := range reqs {
				wg.Go(func() { errs[i] = call(req) })
			}
			wg.Wait()
			return cmp.Or(errs...)
		}
		return errors.Join(
			all(func(req network.AttachRequest) error { return p.put(ctx, req) }),
			all(func(req network.AttachRequest) error { return p.detached(ctx, req.SandboxID) }),
		)
	})
}

func (c *portCrash) withoutTools(ctx context.Context) error {
	return c.withTools(ctx, func(names []string) error {
		search, done, err := without(names)
		if err != nil {
			return err
		}
		defer done()
		return c.each(ctx, func(p *ports, req network.AttachRequest) error {
			other := *c
			other.search = search
			err := other.with(ctx, func(d network.Driver) error {
				_, err := d.Attach(ctx, req)
				return cmp.Or(classified("attach without its tools", err), errIf(err, errFailed))
			})
			var v *Violation
			if errors.As(err, &v) {
				return err
			}
			return c.with(ctx, func(d network.Driver) error {
				if errors.Is(err, errFailed) {
					if err := p.on(d).none(ctx, req.SandboxID); err != nil {
						return fmt.Errorf("after an attach that failed: %w", err)
					}
				}
				return p.on(d).put(ctx, req)
			})
		})
	})
}
