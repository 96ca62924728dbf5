package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// reported remembers which stray VMs were told about, so that each is one event.
type reported struct {
	mu sync.Mutex
	// mu guards:
	marks map[string]bool
}

func (r *reported) first(mark string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marks[mark] {
		return false
	}
	if r.marks == nil {
		r.marks = map[string]bool{}
	}
	r.marks[mark] = true
	return true
}

// sweep compares the rows with the VMs that carry this host's mark. Rows are
// read first: what is made in between is not missed in the listing.
func (s *Scheduler) sweep(ctx context.Context) error {
	idle, err := s.cfg.Store.IdleSandboxes(ctx, lab.SandboxReady, lab.SandboxRunning)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.CallTimeout)
	defer cancel()
	vms, err := s.cfg.Hypervisor.ListVMs(ctx, lab.OwnerPrefix(s.cfg.HostUUID), false)
	if err != nil {
		return fmt.Errorf("list VMs: %w", err)
	}
	byOwner := map[string]hypervisor.VM{}
	for _, vm := range vms {
		byOwner[vm.Ref.Owner] = vm
	}
	var errs []error // one that fails must not hide the others
	for _, sb := range idle {
		if vm, ok := byOwner[sb.Owner]; ok && vm.Power != hypervisor.PowerOff {
			continue
		}
		errs = append(errs, s.alone(ctx, sb.ID, func(ctx context.Context) error { return s.notice(ctx, sb) }))
	}
	for _, vm := range vms {
		errs = append(errs, s.explain(ctx, vm))
	}
	return errors.Join(errs...)
}

// notice looks again at a sandbox whose VM seems to be off or gone. After a
// reboot of the host all are off; that is no failure.
func (s *Scheduler) notice(ctx context.Context, sb lab.Sandbox) error {
	vm, err := s.cfg.Hypervisor.GetVM(ctx, hypervisor.Ref{VMID: sb.VMID, Owner: sb.Owner})
	change := state.SandboxChange{ID: sb.ID, From: []lab.SandboxState{lab.SandboxReady, lab.SandboxRunning}}
	switch {
	case errors.Is(err, fault.NotFound) || err == nil && vm.Ref.Owner != "" && vm.Ref.Owner != sb.Owner:
		change.To, change.Reason = lab.SandboxFailed, "the VM is gone"
	case err != nil:
		return fmt.Errorf("get VM %d: %w", sb.VMID, err)
	case vm.Power == hypervisor.PowerOff:
		change.To, change.Reason = lab.SandboxStopped, "the VM is off: the guest or the host was shut down or rebooted"
	default:
		return nil
	}
	err = s.cfg.Store.Commit(ctx, state.Commit{Sandboxes: []state.SandboxChange{change}})
	if errors.Is(err, fault.Conflict) {
		return nil // its state changed since the row was read
	}
	return err
}

// explain finds the row behind a VM with our mark. One whose sandbox is
// destroyed came out of a call that was cut off, and is destroyed too; one
// without a row is only reported.
func (s *Scheduler) explain(ctx context.Context, vm hypervisor.VM) error {
	id := strings.TrimPrefix(vm.Ref.Owner, lab.OwnerPrefix(s.cfg.HostUUID))
	sb, err := s.cfg.Store.Sandbox(ctx, id)
	switch {
	case errors.Is(err, fault.NotFound):
		return s.tell(ctx, vm, "", "left", "carries this host's mark, but no sandbox explains it")
	case err != nil:
		return err
	case sb.State.Live():
		return nil
	}
	return s.alone(ctx, id, func(ctx context.Context) error {
		if err := s.tell(ctx, vm, id, "destroyed", "belongs to a destroyed sandbox and is destroyed now"); err != nil {
			return err
		}
		err := s.cfg.Hypervisor.DestroyVM(ctx, hypervisor.Ref{RequestID: "sweep", VMID: vm.Ref.VMID, Node: vm.Ref.Node, Owner: sb.Owner})
		if err != nil {
			return fmt.Errorf("destroy VM %d: %w", vm.Ref.VMID, err)
		}
		return s.detach(ctx, id)
	})
}

func (s *Scheduler) tell(ctx context.Context, vm hypervisor.VM, sandboxID, action, message string) error {
	vmid := strconv.FormatUint(uint64(vm.Ref.VMID), 10)
	if !s.seen.first(vmid + " " + vm.Ref.Owner) {
		return nil
	}
	return s.cfg.Store.AppendEvent(ctx, lab.Event{
		Type: lab.EventVMFound, SandboxID: sandboxID, Message: "VM " + vmid + " " + message,
		Fields: with(nil, "vmid", vmid, "owner", vm.Ref.Owner, "action", action),
	})
}
