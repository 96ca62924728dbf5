package conformance

import (
	"context"
	"fmt"
	"slices"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	few    = 12 // VMs of which a descriptor each would be noticed
	fewOn  = 4  // of them at a time: each takes its memory
	rounds = 3
)

// manyVMs: what a plugin keeps for good, such as a connection or the room that
// many calls at a time need, it has after the first rounds, so that only one that
// adds to it each time has a leak.
func (c *machineCrash) manyVMs(ctx context.Context) error {
	return c.suite.check(ctx, Rule{}, func(m *machines, ctx context.Context) error {
		p, ok := m.Driver.(*behind)
		if !ok {
			return fmt.Errorf("%w: a plugin with a process of its own", ErrSkipped)
		}
		pid := p.process.PID()
		before, err := measure(pid)
		if err != nil {
			return err
		}
		var wrong error
		for range rounds {
			if err := m.fewVMs(ctx); err != nil {
				return err
			}
			after, err := settled(pid, before)
			if err != nil || !after.grown(before) {
				return err
			}
			wrong = saw("after %d vms were created, switched on and off and destroyed it has %s", few, after).want("about what it had before them: %s", before)
			before = after
		}
		return wrong
	})
}

// fewVMs takes some VMs through a life of four calls.
func (m *machines) fewVMs(ctx context.Context) error {
	reqs, err := m.requests(ctx, few)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(reqs, fewOn) {
		err := atOnce(some, func(req hypervisor.CreateRequest) error {
			if _, err := m.CreateVM(ctx, req, nil); err != nil {
				return fmt.Errorf("create one of %d: %w", fewOn, err)
			}
			for _, target := range []hypervisor.Power{hypervisor.PowerOn, hypervisor.PowerOff} {
				if err := m.turn(ctx, req.Ref, target, target); err != nil {
					return err
				}
			}
			return m.destroyed(ctx, req.Ref)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
