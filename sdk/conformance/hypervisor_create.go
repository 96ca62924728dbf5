package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	// busyTimeout is how long a VM may be busy with a call that nobody waits for.
	busyTimeout = 30 * time.Second
	// tidyTimeout is how long such a call may take to clean up.
	tidyTimeout = 10 * time.Second
)

func (m *machines) getAbsent(ctx context.Context) error {
	all, err := m.ListVMs(ctx, "", true)
	if err != nil {
		return fmt.Errorf("list vms: %w", err)
	}
	vmid := m.host.VMIDLast
	for slices.ContainsFunc(all, func(v hypervisor.VM) bool { return v.Ref.VMID == vmid }) {
		if vmid--; vmid < m.host.VMIDFirst {
			return fmt.Errorf("%w: a vmid that is free", ErrSkipped)
		}
	}
	return m.wantGone(ctx, hypervisor.Ref{VMID: vmid})
}

func (m *machines) absent(ctx context.Context) error {
	ref, err := m.unused(ctx)
	if err != nil {
		return err
	}
	if err := m.wantGone(ctx, ref); err != nil {
		return err
	}
	_, err = m.SetPower(ctx, ref, hypervisor.PowerOn, 0)
	if err := wantClass("set power of an absent vm", err, fault.NotFound); err != nil {
		return err
	}
	return m.opts.Effects.unchanged(ctx, "destroy of an absent vm", func() error {
		if err := m.DestroyVM(ctx, ref); err != nil {
			return fmt.Errorf("destroy of an absent vm: %w", err)
		}
		return nil
	})
}

func (m *machines) create(ctx context.Context) error {
	req, err := m.request(ctx)
	if errors.Is(err, errNoTemplate) {
		return saw("no template is whole, so nothing of CreateVM was checked").want("one: make it, or name it with --set template=NAME (HypervisorOptions.Template)")
	}
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wrong error
	returned := false
	vm, err := m.CreateVM(ctx, req, func(p hypervisor.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Phase == "" || p.Fraction > 1 || p.BytesDone > p.BytesTotal || returned {
			wrong = saw("progress %+v (after the return: %t)", p, returned).want("a phase, a fraction of 1 at most, and none after the return")
		}
	})
	mu.Lock()
	returned = true
	err = errors.Join(err, wrong)
	mu.Unlock()
	if err != nil {
		return fmt.Errorf("create vm: %w", err)
	}
	got, err := m.GetVM(ctx, hypervisor.Ref{VMID: req.Ref.VMID})
	if err != nil {
		return fmt.Errorf("get vm: %w", err)
	}
	for _, v := range []hypervisor.VM{vm, got} {
		if err := fits(v, req, fmt.Sprintf(m.host.InterfacePattern, req.Ref.VMID)); err != nil {
			return err
		}
	}
	return nil
}

// fits checks a fresh VM against what was asked for.
func fits(v hypervisor.VM, req hypervisor.CreateRequest, iface string) error {
	switch {
	case v.Ref.VMID != req.Ref.VMID || v.Ref.Owner != req.Ref.Owner:
		return saw("vm is %d of %q", v.Ref.VMID, v.Ref.Owner).want("%d of %q", req.Ref.VMID, req.Ref.Owner)
	case v.Power != hypervisor.PowerOff || !v.Started.IsZero():
		return saw("a fresh vm is %s, started %s", v.Power, v.Started).want("off")
	case v.Name != req.Name || v.Cores != req.Cores || v.MemoryBytes != req.MemoryBytes:
		return saw("vm is %s with %d cores and %d bytes", v.Name, v.Cores, v.MemoryBytes).want("%s, %d, %d", req.Name, req.Cores, req.MemoryBytes)
	case v.NIC.MAC != req.NIC.MAC:
		return saw("mac is %s", v.NIC.MAC).want("%s", req.NIC.MAC)
	case v.HostInterface != iface:
		return saw("interface is %q", v.HostInterface).want("%q, as the host report promised", iface)
	}
	return nil
}

func (m *machines) createTwice(ctx context.Context) error {
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	repeat := func(want hypervisor.Power) error {
		return m.opts.Effects.unchanged(ctx, "a repeated create", func() error {
			vm, err := m.CreateVM(ctx, req, nil)
			if err != nil {
				return fmt.Errorf("repeat create: %w", err)
			}
			if vm.Power != want || vm.Ref.Owner != req.Ref.Owner {
				return saw("a repeated create answers a vm that is %s, of %q", vm.Power, vm.Ref.Owner).want("the present state: %s, %q", want, req.Ref.Owner)
			}
			return nil
		})
	}
	if err := repeat(hypervisor.PowerOff); err != nil {
		return err
	}
	if err := m.turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn); err != nil {
		return err
	}
	return repeat(hypervisor.PowerOn)
}

// createAtOnce creates three VMs at the same time, one of them by two calls, as
// when a call comes again while the first still runs.
func (m *machines) createAtOnce(ctx context.Context) error {
	second, done, err := m.another(ctx)
	if err != nil {
		return err
	}
	defer done()
	var reqs []hypervisor.CreateRequest
	for range 3 {
		req, err := m.request(ctx)
		if err != nil {
			return err
		}
		reqs = append(reqs, req)
	}
	reqs = append(reqs, reqs[0])
	errs := make([]error, len(reqs))
	var wg sync.WaitGroup
	for i, req := range reqs {
		driver := m.Driver
		if i == len(reqs)-1 {
			driver = second
		}
		wg.Go(func() {
			_, err := driver.CreateVM(ctx, req, nil)
			// The VM may be busy with the other call; nothing else is an excuse.
			if err != nil && !(i%3 == 0 && (errors.Is(err, fault.Locked) || errors.Is(err, fault.Conflict))) {
				errs[i] = fmt.Errorf("create vm %d beside others: %w", req.Ref.VMID, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, req := range reqs {
		vm, err := m.CreateVM(ctx, req, nil)
		if err != nil || vm.Ref.Owner != req.Ref.Owner || vm.Power != hypervisor.PowerOff {
			return saw("vm %d after creates at the same time: %s, of %q, %v", req.Ref.VMID, vm.Power, vm.Ref.Owner, err).
				want("it whole, off, of %q", req.Ref.Owner)
		}
	}
	return nil
}

// another is a second process of the plugin, or the same if it may run only once.
func (m *machines) another(ctx context.Context) (hypervisor.Driver, func(), error) {
	info, err := infoOf(ctx, m.Driver)
	if err != nil || info.Exclusive {
		return m.Driver, func() {}, err
	}
	second, err := m.open.first(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("a second process: %w", err)
	}
	return second.driver, second.close, nil
}

func (m *machines) createUnknown(ctx context.Context) error {
	req, err := m.request(ctx)
	if err != nil {
		return err
	}
	req.Template = "there-is-no-such-template"
	_, err = m.CreateVM(ctx, req, nil)
	if err := wantClass("create from an unknown template", err, fault.NotFound, fault.Invalid); err != nil {
		return err
	}
	return m.wantGone(ctx, req.Ref)
}

// createGivenUp: a caller that goes away, before the call or in the middle of
// it, leaves nothing that a later call of the same owner cannot handle.
func (m *machines) createGivenUp(ctx context.Context) error {
	for _, when := range []string{"before", "amid"} {
		req, err := m.request(ctx)
		if err != nil {
			return err
		}
		gone, cancel := context.WithCancel(ctx)
		defer cancel()
		if when == "before" {
			cancel()
		}
		_, err = m.CreateVM(gone, req, func(hypervisor.Progress) { cancel() })
		// A call in progress may be done before it hears of it.
		if err == nil && when == "before" {
			return saw("create with a cancelled context succeeded").want("an error")
		}
		if err != nil {
			if err := m.wantNoHalf(ctx, req); err != nil {
				return fmt.Errorf("after a create that was given up %s the call: %w", when, err)
			}
		}
		if err := m.createAfter(ctx, req); err != nil {
			return fmt.Errorf("create after one that was given up %s the call: %w", when, err)
		}
		if err := m.DestroyVM(ctx, req.Ref); err != nil {
			return fmt.Errorf("destroy after a create that was given up %s the call: %w", when, err)
		}
		if err := m.wantGone(ctx, req.Ref); err != nil {
			return err
		}
	}
	return nil
}

// wantNoHalf waits until a create that failed has left nothing, or was done before
// it heard of its end.
func (m *machines) wantNoHalf(ctx context.Context, req hypervisor.CreateRequest) error {
	for deadline := time.Now().Add(tidyTimeout); ; time.Sleep(50 * time.Millisecond) {
		vm, err := m.GetVM(ctx, req.Ref)
		if errors.Is(err, fault.NotFound) {
			return m.wantGone(ctx, req.Ref)
		}
		if err == nil && m.finished(vm, req) == nil {
			return nil
		}
		if !time.Now().Before(deadline) {
			return saw("half of vm %d is there: name %q, %d cores, lock %q, %v", req.Ref.VMID, vm.Name, vm.Cores, vm.Lock, err).want("nothing, or the whole vm")
		}
	}
}

// finished checks that a fresh VM is whole.
func (m *machines) finished(vm hypervisor.VM, req hypervisor.CreateRequest) error {
	if vm.Lock != "" {
		return saw("vm %d is there, with the lock %q", req.Ref.VMID, vm.Lock).want("it finished or made anew, without a lock")
	}
	return fits(vm, req, fmt.Sprintf(m.host.InterfacePattern, req.Ref.VMID))
}

// createAfter creates while an earlier create may not have ended yet.
func (m *machines) createAfter(ctx context.Context, req hypervisor.CreateRequest) error {
	busy, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	for {
		vm, err := m.CreateVM(ctx, req, nil)
		if err == nil {
			return m.finished(vm, req)
		}
		if !errors.Is(err, fault.Locked) && !errors.Is(err, fault.Conflict) {
			return err
		}
		select {
		case <-busy.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (m *machines) list(ctx context.Context) error {
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	tests := []struct {
		prefix        string
		foreign, want bool
	}{
		{m.prefix(), false, true},
		{m.prefix(), true, true},
		{req.Ref.Owner, false, true},
		{"agentlab:nobody/", false, false},
		{"agentlab:nobody/", true, true},
	}
	for _, tt := range tests {
		all, err := m.ListVMs(ctx, tt.prefix, tt.foreign)
		if err != nil {
			return fmt.Errorf("list vms: %w", err)
		}
		n := 0
		for _, v := range all {
			if v.Ref.VMID == req.Ref.VMID {
				n++
			}
		}
		if (n == 1) != tt.want || n > 1 {
			return saw("list of %q (foreign %t) has the vm %d times", tt.prefix, tt.foreign, n).want("it: %t", tt.want)
		}
		if !tt.foreign && slices.ContainsFunc(all, func(v hypervisor.VM) bool { return v.Ref.Owner == "" }) {
			return saw("list without foreign has a vm without owner").want("VMs with a mark alone")
		}
	}
	return nil
}
