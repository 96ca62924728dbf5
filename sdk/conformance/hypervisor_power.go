package conformance

import (
	"context"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func (m *machines) power(ctx context.Context) error {
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	for _, target := range []hypervisor.Power{hypervisor.PowerOff, hypervisor.PowerOn, hypervisor.PowerOff, hypervisor.PowerOn} {
		if err := m.turn(ctx, req.Ref, target, target); err != nil {
			return err
		}
		first, err := m.GetVM(ctx, req.Ref)
		if err != nil {
			return fmt.Errorf("get vm: %w", err)
		}
		if first.Started.IsZero() != (target == hypervisor.PowerOff) {
			return saw("a vm that is %s started %s", target, first.Started).want("a time when it is on, and none when it is off")
		}
		err = m.opts.Effects.unchanged(ctx, "a repeated set power", func() error {
			return m.turn(ctx, req.Ref, target, target)
		})
		if err != nil {
			return err
		}
		if again, err := m.GetVM(ctx, req.Ref); err != nil || !again.Started.Equal(first.Started) {
			return saw("after a repeated set power to %s the vm started %s (%v)", target, again.Started, err).want("%s, as before", first.Started)
		}
	}
	return nil
}

func (m *machines) pause(ctx context.Context) error {
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if _, err := m.SetPower(ctx, ref, hypervisor.PowerPaused, 0); fault.ClassOf(err) == fault.Unsupported {
		return fmt.Errorf("%w: a hypervisor that pauses", ErrSkipped)
	}
	for _, target := range []hypervisor.Power{hypervisor.PowerPaused, hypervisor.PowerPaused, hypervisor.PowerOn, hypervisor.PowerPaused, hypervisor.PowerOff} {
		if err := m.turn(ctx, ref, target, target); err != nil {
			return err
		}
	}
	_, err = m.SetPower(ctx, ref, hypervisor.PowerPaused, 0)
	return wantClass("pause of a vm that is off", err, fault.Precondition)
}

// shutdown: whatever the guest does, the VM is off soon after the grace.
func (m *machines) shutdown(ctx context.Context) error {
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	for range 2 {
		if err := m.turn(ctx, ref, hypervisor.PowerShutdown, hypervisor.PowerOff); err != nil {
			return err
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		return saw("two shutdowns with a grace of a second took %s", took).want("30 seconds at most")
	}
	return nil
}

func (m *machines) hibernate(ctx context.Context) error {
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	_, err = m.SetPower(ctx, req.Ref, "levitating", 0)
	if err := wantClass("set power to a state that does not exist", err, fault.Unsupported, fault.Invalid); err != nil {
		return err
	}
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if _, err := m.SetPower(ctx, ref, hypervisor.PowerHibernated, 0); err != nil {
		return wantClass("hibernate", err, fault.Unsupported)
	}
	return nil
}

// foreign: whoever does not carry the mark changes nothing, but may look.
func (m *machines) foreign(ctx context.Context) error {
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	before, err := m.GetVM(ctx, ref)
	if err != nil {
		return fmt.Errorf("get vm: %w", err)
	}
	for _, owner := range []string{"", ref.Owner + "x", ref.Owner[:len(ref.Owner)-1], "agentlab:nobody/sbx_1"} {
		stranger := ref
		stranger.Owner = owner
		if seen, err := m.GetVM(ctx, stranger); err != nil || seen.Ref.Owner != ref.Owner {
			return saw("get by %q: a vm of %q, %v", owner, seen.Ref.Owner, err).want("the vm of %q", ref.Owner)
		}
		err := m.opts.Effects.unchanged(ctx, "a stranger's call", func() error {
			_, err := m.SetPower(ctx, stranger, hypervisor.PowerOff, 0)
			if err := wantClass(fmt.Sprintf("set power by %q", owner), err, fault.Precondition); err != nil {
				return err
			}
			return wantClass(fmt.Sprintf("destroy by %q", owner), m.DestroyVM(ctx, stranger), fault.Precondition)
		})
		if err != nil {
			return err
		}
		if err := m.same(ctx, before); err != nil {
			return err
		}
	}
	return nil
}

func (m *machines) destroy(ctx context.Context) error {
	ref, left, err := m.leftOfOne(ctx)
	if err == nil && len(left) > 0 { // one that serves all VMs may stay; one more for each may not
		_, left, err = m.leftOfOne(ctx)
	}
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return saw("after the destroy %s runs on, which came with the vm", left).want("no program of the vm")
	}
	return m.opts.Effects.unchanged(ctx, "a repeated destroy", func() error {
		if err := m.DestroyVM(ctx, ref); err != nil {
			return fmt.Errorf("repeat destroy: %w", err)
		}
		stranger := ref
		stranger.Owner += "x"
		if err := m.DestroyVM(ctx, stranger); err != nil {
			return fmt.Errorf("destroy of what is gone, by another owner: %w", err)
		}
		return nil
	})
}

// leftOfOne destroys a VM that is on, and gives the programs of it that go on.
func (m *machines) leftOfOne(ctx context.Context) (hypervisor.Ref, programs, error) {
	before := programsOf(m.Driver)
	ref, err := m.running(ctx)
	if err != nil {
		return ref, nil, err
	}
	came := programsOf(m.Driver).besides(before)
	if err := m.DestroyVM(ctx, ref); err != nil {
		return ref, nil, fmt.Errorf("destroy a running vm: %w", err)
	}
	return ref, came.ended(), m.wantGone(ctx, ref)
}

func (m *machines) stats(ctx context.Context) error {
	on, err := m.running(ctx)
	if err != nil {
		return err
	}
	off, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	got, err := m.GetStats(ctx, []uint32{on.VMID, off.Ref.VMID, m.host.VMIDLast + 1})
	if err != nil {
		return fmt.Errorf("get stats: %w", err)
	}
	if _, ok := got[on.VMID]; !ok || len(got) != 1 {
		return saw("there are stats of %d vms, %d among them: %t", len(got), on.VMID, ok).want("those of vm %d alone", on.VMID)
	}
	if f := got[on.VMID].CPUFraction; f < 0 || f > 1.5 {
		return saw("the vm uses %g of its cores", f).want("0 to 1")
	}
	return nil
}

func (m *machines) console(ctx context.Context) error {
	reader, ok := m.Driver.(hypervisor.ConsoleReader)
	if !ok {
		return fmt.Errorf("%w: a hypervisor that keeps the console", ErrSkipped)
	}
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	text, err := reader.Console(ctx, ref)
	if fault.ClassOf(err) == fault.Unsupported { // if it says that it can, capability.declared fails
		return fmt.Errorf("%w: a hypervisor that keeps the console", ErrSkipped)
	}
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	if len(text) > 64<<10 {
		return saw("console has %d bytes", len(text)).want("64 KiB at most")
	}
	if err := m.DestroyVM(ctx, ref); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	_, err = reader.Console(ctx, ref)
	return wantClass("console of a vm that is gone", err, fault.NotFound)
}

// survives: what was made is there, and goes on, when the process that made it
// has ended.
func (m *machines) survives(ctx context.Context) error {
	earlier := programsOf(m.Driver)
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	came := programsOf(m.Driver).besides(earlier)
	info, err := infoOf(ctx, m.Driver)
	if err != nil {
		return err
	}
	before, err := m.GetVM(ctx, ref)
	if err != nil {
		return fmt.Errorf("get vm: %w", err)
	}
	err = m.process.successors(ctx, func(next hypervisor.Driver) error {
		m.Driver = next
		after, err := m.GetVM(ctx, ref)
		if err != nil {
			return fmt.Errorf("get vm: %w", err)
		}
		if was, is := differ(before, after); was != "" {
			return saw("the next process sees %s", is).want("%s, as the first saw", was)
		}
		return came.outlive(info.Confinement.StartsWorkloads)
	})
	if err != nil {
		return err
	}
	if err := m.DestroyVM(ctx, ref); err != nil {
		return fmt.Errorf("destroy by another process: %w", err)
	}
	return m.wantGone(ctx, ref)
}
