package conformance

import (
	"context"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// passingTime is how long a program may run beside a VM and be none of it.
const passingTime = 300 * time.Millisecond

// taken: the number belongs to somebody else, whose VM goes on.
func (m *machines) taken(ctx context.Context) error {
	for _, power := range []hypervisor.Power{hypervisor.PowerOff, hypervisor.PowerOn} {
		ended, err := m.robbed(ctx, power)
		if err == nil && len(ended) > 0 { // by itself perhaps, but not twice
			ended, err = m.robbed(ctx, power)
		}
		if err != nil {
			return fmt.Errorf("where the vm is %s: %w", power, err)
		}
		if len(ended) > 0 {
			return saw("a refused create ended %s, which came with the vm", ended).want("the vm of another owner to go on")
		}
	}
	return nil
}

// robbed creates on the number of another's VM, and gives the programs of that
// which have ended.
func (m *machines) robbed(ctx context.Context, power hypervisor.Power) (programs, error) {
	earlier := programsOf(m.Driver)
	req, before, err := m.vm(ctx)
	if err != nil {
		return nil, err
	}
	if power != hypervisor.PowerOff {
		if err := m.turn(ctx, req.Ref, power, power); err != nil {
			return nil, err
		}
		if before, err = m.GetVM(ctx, req.Ref); err != nil {
			return nil, fmt.Errorf("get vm: %w", err)
		}
	}
	came := programsOf(m.Driver).besides(earlier)
	if len(came) > 0 {
		time.Sleep(passingTime)
		came = came.left()
	}
	thief := req
	thief.Ref.Owner, thief.Name, thief.Cores = req.Ref.Owner+"x", "conformance-thief", 2
	err = m.opts.Effects.unchanged(ctx, "a refused create", func() error {
		_, err := m.CreateVM(ctx, thief, nil)
		return wantClass("create on somebody else's vmid", err, fault.Exists)
	})
	if err != nil {
		return nil, err
	}
	if len(came) > 0 { // an end takes a moment
		time.Sleep(passingTime)
	}
	return came.besides(came.left()), m.same(ctx, before)
}

// same checks that a VM is as it was.
func (m *machines) same(ctx context.Context, before hypervisor.VM) error {
	after, err := m.GetVM(ctx, hypervisor.Ref{VMID: before.Ref.VMID})
	if err != nil {
		return fmt.Errorf("get vm: %w", err)
	}
	if was, is := differ(before, after); was != "" {
		return saw("a refused call changed the vm: %s", is).want("%s, as it was", was)
	}
	return nil
}

// differ names the first thing in which two views of a VM differ; "" for none.
func differ(a, b hypervisor.VM) (inA, inB string) {
	for _, part := range []struct {
		name string
		a, b any
	}{
		{"owner", a.Ref.Owner, b.Ref.Owner},
		{"name", a.Name, b.Name},
		{"cores", a.Cores, b.Cores},
		{"memory", a.MemoryBytes, b.MemoryBytes},
		{"power", a.Power, b.Power},
		{"started", a.Started.UTC(), b.Started.UTC()},
	} {
		if part.a != part.b {
			return fmt.Sprintf("%s %v", part.name, part.a), fmt.Sprintf("%s %v", part.name, part.b)
		}
	}
	return "", ""
}
