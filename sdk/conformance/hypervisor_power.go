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
	return nil
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

// foreign: whoever does not carry the mark changes nothing.
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
	ref, err := m.running(ctx)
	if err != nil {
		return err
	}
	if err := m.DestroyVM(ctx, ref); err != nil {
		return fmt.Errorf("destroy a running vm: %w", err)
	}
	if err := m.wantGone(ctx, ref); err != nil {
		return err
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
		return saw("stats are %+v", got).want("those of vm %d alone", on.VMID)
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
	if err != nil {
		return wantClass("console", err, fault.Unsupported)
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
	ref, err := m.running(ctx)
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
		if after.Power != hypervisor.PowerOn || after.Ref.Owner != ref.Owner || !after.Started.Equal(before.Started) {
			return saw("the next process sees %+v", after).want("what the first saw: %+v", before)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.DestroyVM(ctx, ref); err != nil {
		return fmt.Errorf("destroy by another process: %w", err)
	}
	return m.wantGone(ctx, ref)
}
