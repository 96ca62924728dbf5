package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// machineCrash is the state of one check on VMs.
type machineCrash struct {
	crashing[hypervisor.Driver]
	suite *hypervisorSuite
}

// HypervisorCrashes checks a hypervisor whose process dies.
func HypervisorCrashes(b Binary, opts HypervisorOptions) []Check {
	s := &hypervisorSuite{open: b.Hypervisor(), opts: opts, run: unique()}
	return bind(b.Kind, slices.Concat(machineCrashRules, storageCrashRules), func(ctx context.Context, _ Rule, fn func(*machineCrash, context.Context) error) error {
		return fn(&machineCrash{
			crashing: crashing[hypervisor.Driver]{b, hypervisorBehind}, suite: s,
		}, ctx)
	})
}

var machineCrashRules = []ruled[*machineCrash]{
	changes("hypervisor.killed-in-create", 3, "kills the process at six moments of a create and at its first progress, creates again, and starts the VM, which has no lock then",
		"A half-made VM of the same (vmid, owner) is finished or made anew.", (*machineCrash).inCreate),
	changes("hypervisor.killed-in-power", 3, "kills the process at six moments of a power-on, and powers on again",
		"A repeat converges and answers the current state", (*machineCrash).inPower),
	changes("hypervisor.killed-in-destroy", 3, "kills the process at six moments of a destroy, and destroys again",
		"Gone is success, but whatever is left of it, such as a program that runs on, is ended and freed.", (*machineCrash).inDestroy),
	changes("hypervisor.crowd", 3, "creates and destroys 32 VMs at the same time",
		"Calls on different VMs are concurrent.", (*machineCrash).crowd),
	changes("hypervisor.many-vms", 3, "creates, switches on and off and destroys 12 VMs, and compares memory, descriptors, threads and children; if there is more, up to twice again",
		"A plugin runs for months: a call leaves nothing behind in its process.", (*machineCrash).manyVMs),
	changes("hypervisor.create-without-tools", 3, "creates with a PATH that lacks its tools, and then with them",
		"On failure nothing stays behind.", (*machineCrash).withoutTools),
	changes("hypervisor.create-hanging-tools", 3, "creates with tools that never end, under a deadline, and then with whole ones",
		"A tool that hangs does not make its caller hang: what a call started ends with the call.", (*machineCrash).hangingTools),
}

// each runs fn as a check of the suite's fixture, which cleans up after it. The
// fixture's own process ends before, since there is one process at a time.
func (c *machineCrash) each(ctx context.Context, fn func(m *machines, req hypervisor.CreateRequest) error) error {
	return c.suite.check(ctx, Rule{}, func(m *machines, ctx context.Context) error {
		req, err := m.request(ctx)
		if err != nil {
			return err
		}
		m.process.close()
		m.process.done = func() {}
		return errors.Join(fn(m, req), m.reopen(ctx))
	})
}

// reopen gives the fixture a process again.
func (m *machines) reopen(ctx context.Context) error {
	m.process.done()
	next, err := m.open.first(ctx)
	if err != nil {
		m.process.done = func() {}
		return err
	}
	*m.process = *next
	m.Driver = next.driver
	return nil
}

func (c *machineCrash) inCreate(ctx context.Context) error {
	return c.each(ctx, func(m *machines, req hypervisor.CreateRequest) error {
		took, err := c.time(ctx, func(d hypervisor.Driver) error { _, err := d.CreateVM(ctx, req, nil); return err })
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		again := func(d hypervisor.Driver) error {
			if err := m.on(d).wholeAfter(ctx, req); err != nil {
				return fmt.Errorf("the same create again: %w", err)
			}
			return m.on(d).destroyed(ctx, req.Ref)
		}
		if err := c.with(ctx, func(d hypervisor.Driver) error { return m.on(d).destroyed(ctx, req.Ref) }); err != nil {
			return err
		}
		err = atEachMoment(took, func(after time.Duration) error {
			err := c.killed(ctx, after, func(d hypervisor.Driver, _ func()) error { _, err := d.CreateVM(ctx, req, nil); return err })
			return errors.Join(err, c.with(ctx, again))
		})
		if err != nil {
			return err
		}
		err = c.killed(ctx, callLimit, func(d hypervisor.Driver, sign func()) error {
			_, err := d.CreateVM(ctx, req, func(hypervisor.Progress) { sign() })
			return err
		})
		if err = errors.Join(err, c.with(ctx, again)); err != nil {
			return fmt.Errorf("killed at its first progress: %w", err)
		}
		return nil
	})
}

// wholeAfter creates again, and wants a VM that is free and starts: one that is
// half made may look as it was asked for.
func (m *machines) wholeAfter(ctx context.Context, req hypervisor.CreateRequest) error {
	if err := m.createAfter(ctx, req); err != nil {
		return err
	}
	vm, err := m.GetVM(ctx, req.Ref)
	if err != nil {
		return fmt.Errorf("get vm: %w", err)
	}
	if err := m.finished(vm, req); err != nil {
		return err
	}
	for _, target := range []hypervisor.Power{hypervisor.PowerOn, hypervisor.PowerOff} {
		if err := m.turn(ctx, req.Ref, target, target); err != nil {
			return err
		}
	}
	return nil
}

// on is the fixture with another driver.
func (m *machines) on(d hypervisor.Driver) *machines {
	return &machines{hypervisorSuite: m.hypervisorSuite, Driver: d, host: m.host}
}

// destroyed destroys a VM and looks whether it is gone.
func (m *machines) destroyed(ctx context.Context, ref hypervisor.Ref) error {
	if err := m.DestroyVM(ctx, ref); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	return m.wantGone(ctx, ref)
}

func (c *machineCrash) inPower(ctx context.Context) error {
	return c.each(ctx, func(m *machines, req hypervisor.CreateRequest) error {
		on := func(d hypervisor.Driver) error {
			return m.on(d).turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn)
		}
		off := func(d hypervisor.Driver) error {
			return m.on(d).turn(ctx, req.Ref, hypervisor.PowerOff, hypervisor.PowerOff)
		}
		err := c.with(ctx, func(d hypervisor.Driver) error { _, err := d.CreateVM(ctx, req, nil); return err })
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		took, err := c.time(ctx, on)
		if err = errors.Join(err, c.with(ctx, off)); err != nil {
			return err
		}
		return atEachMoment(took, func(after time.Duration) error {
			err := c.killed(ctx, after, func(d hypervisor.Driver, _ func()) error { return on(d) })
			return errors.Join(err, c.with(ctx, func(d hypervisor.Driver) error { return errors.Join(on(d), off(d)) }))
		})
	})
}

func (c *machineCrash) inDestroy(ctx context.Context) error {
	return c.each(ctx, func(m *machines, req hypervisor.CreateRequest) error {
		var started programs
		ready := func(d hypervisor.Driver) error {
			before := programsOf(d)
			if _, err := d.CreateVM(ctx, req, nil); err != nil {
				return fmt.Errorf("create: %w", err)
			}
			err := m.on(d).turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn)
			started = programsOf(d).besides(before)
			return err
		}
		if err := c.with(ctx, ready); err != nil {
			return err
		}
		took, err := c.time(ctx, func(d hypervisor.Driver) error { return d.DestroyVM(ctx, req.Ref) })
		if err != nil {
			return fmt.Errorf("destroy: %w", err)
		}
		return atEachMoment(took, func(after time.Duration) error {
			if err := c.with(ctx, ready); err != nil {
				return err
			}
			err := c.killed(ctx, after, func(d hypervisor.Driver, _ func()) error { return d.DestroyVM(ctx, req.Ref) })
			err = errors.Join(err, c.with(ctx, func(d hypervisor.Driver) error { return m.on(d).destroyed(ctx, req.Ref) }))
			if left := started.ended(); err == nil && len(left) > 0 {
				return saw("after the destroy %s runs on, which came with the vm", left).want("no program of the vm")
			}
			return err
		})
	})
}

func (c *machineCrash) crowd(ctx context.Context) error {
	return c.suite.check(ctx, Rule{}, func(m *machines, ctx context.Context) error {
		reqs, err := m.requests(ctx, crowd)
		if err != nil {
			return err
		}
		err = atOnce(reqs, func(req hypervisor.CreateRequest) error {
			vm, err := m.CreateVM(ctx, req, nil)
			if err != nil {
				return fmt.Errorf("create one of %d: %w", crowd, err)
			}
			return fits(vm, req, fmt.Sprintf(m.host.InterfacePattern, req.Ref.VMID))
		})
		if err != nil {
			return err
		}
		return atOnce(reqs, func(req hypervisor.CreateRequest) error { return m.destroyed(ctx, req.Ref) })
	})
}

func (m *machines) requests(ctx context.Context, n int) ([]hypervisor.CreateRequest, error) {
	out := make([]hypervisor.CreateRequest, n)
	for i := range out {
		var err error
		if out[i], err = m.request(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// atOnce makes the calls at the same time and gives the first error.
func atOnce(reqs []hypervisor.CreateRequest, call func(req hypervisor.CreateRequest) error) error {
	errs := make([]error, len(reqs))
	var wg sync.WaitGroup
	for i, req := range reqs {
		wg.Go(func() { errs[i] = call(req) })
	}
	wg.Wait()
	return cmp.Or(errs...)
}

func (c *machineCrash) withoutTools(ctx context.Context) error {
	return c.withTools(ctx, func(names []string) error {
		search, done, err := without(names)
		if err != nil {
			return err
		}
		defer done()
		return c.each(ctx, func(m *machines, req hypervisor.CreateRequest) error {
			return c.recovers(ctx, search, m, req, func(d hypervisor.Driver) error {
				_, err := d.CreateVM(ctx, req, nil)
				return cmp.Or(classified("create without its tools", err), errIf(err, errFailed))
			})
		})
	})
}

// recovers makes a call with another PATH. When it fails, as it may, nothing is
// left of it, and the same call works with the old PATH.
func (c *machineCrash) recovers(ctx context.Context, search string, m *machines, req hypervisor.CreateRequest, call func(hypervisor.Driver) error) error {
	other := *c
	other.search = search
	err := other.with(ctx, call)
	var v *Violation
	if errors.As(err, &v) {
		return err
	}
	return c.with(ctx, func(d hypervisor.Driver) error {
		if errors.Is(err, errFailed) {
			if err := m.on(d).wantGone(ctx, req.Ref); err != nil {
				return fmt.Errorf("after a create that failed: %w", err)
			}
		}
		if err := m.on(d).createAfter(ctx, req); err != nil {
			return fmt.Errorf("the same create with whole tools: %w", err)
		}
		return m.on(d).destroyed(ctx, req.Ref)
	})
}

func (c *machineCrash) hangingTools(ctx context.Context) error {
	return c.withTools(ctx, func(names []string) error {
		hung, err := hanging(names)
		if err != nil {
			return err
		}
		defer hung.done()
		return c.each(ctx, func(m *machines, req hypervisor.CreateRequest) error {
			return c.recovers(ctx, hung.search, m, req, func(d hypervisor.Driver) error {
				short, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				start := time.Now()
				_, err := d.CreateVM(short, req, nil)
				if took := time.Since(start); took > 5*time.Second {
					return saw("a create with a deadline of 3 seconds took %s", took).want("3 seconds")
				}
				return cmp.Or(hung.ended(), errIf(err, errFailed))
			})
		})
	})
}
