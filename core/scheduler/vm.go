package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	hostReportAge  = time.Minute      // how long CheckHost's answer is used
	lookTimeout    = 10 * time.Second // of a call that only looks
	consoleTail    = 2 << 10          // bytes of console shown in an error
	consoleLines   = 20               // lines of it
	consoleTimeout = 5 * time.Second
)

// hostReport is CheckHost's answer, not older than hostReportAge.
func (s *Scheduler) hostReport(ctx context.Context) (hypervisor.HostReport, error) {
	s.mu.Lock()
	host, at := s.host, s.hostAt
	s.mu.Unlock()
	if !at.IsZero() && time.Since(at) < hostReportAge {
		return host, nil
	}
	host, err := s.cfg.Hypervisor.CheckHost(ctx)
	if err != nil {
		return host, fmt.Errorf("check hypervisor: %w", err)
	}
	if host.InterfacePattern == "" || host.VMIDFirst == 0 {
		return host, fault.New(fault.Internal, "the hypervisor plugin names no VMID range or interface pattern")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host, s.hostAt = host, time.Now()
	return host, nil
}

func (w *work) requestID() string {
	return w.op.ID + "/" + w.op.Step + "/" + strconv.Itoa(w.op.Attempt)
}

func (w *work) ref() hypervisor.Ref {
	return hypervisor.Ref{RequestID: w.requestID(), VMID: w.sb.VMID, Owner: w.sb.Owner}
}

func (w *work) sandboxTo(to lab.SandboxState, reason string) state.Commit {
	return state.Commit{Sandboxes: []state.SandboxChange{{ID: w.sb.ID, To: to, Reason: reason}}}
}

// cutAndRemoveVM takes the VM off the network first, so that one that cannot be
// destroyed is at least shut in. It is stopped hard and its guest is not heard
// any more, so it has nothing left to say. A network plugin that is down must
// not keep a VM alive either: the step after this one detaches for certain.
func cutAndRemoveVM(ctx context.Context, w *work) error {
	cutCtx, cancel := context.WithTimeout(ctx, lookTimeout)
	cut := w.detach(cutCtx, w.sb.ID)
	cancel()
	err := removeVM(ctx, w)
	if err != nil && cut != nil && !patient.again(err, w.op.Attempt) {
		// No reason to give up while it is on the network.
		return fmt.Errorf("detach VM that cannot be destroyed (%v): %w", err, cut)
	}
	return err
}

// removeVM destroys the sandbox's VM, and nothing else. It asks for that where
// the VM is said to be gone too: only the driver knows what may be left of one.
// A VM that certainly is another's is reported and left alone; where that is in
// doubt the driver compares the mark and refuses, and so do we.
func removeVM(ctx context.Context, w *work) error {
	held, err := w.cfg.Store.Reservation(ctx, w.sb.ID)
	if errors.Is(err, fault.NotFound) || err == nil && !held.Attempted {
		return nil // no VM was ever asked for
	}
	if err != nil {
		return err
	}
	vm, err := w.cfg.Hypervisor.GetVM(ctx, w.ref())
	switch {
	case errors.Is(err, fault.NotFound):
		if err := w.confirmGone(ctx); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("read owner: %w", err)
	case vm.Ref.Owner != "" && vm.Ref.Owner != w.sb.Owner:
		if err := w.confirmGone(ctx); err != nil {
			return err
		}
		return w.cfg.Store.AppendEvent(ctx, lab.Event{
			Type: lab.EventVMFound, SandboxID: w.sb.ID, JobID: w.sb.JobID, Operation: w.op.ID,
			Message: fmt.Sprintf("VM %d belongs to somebody else and is left alone", w.sb.VMID),
			Fields:  with(nil, "vmid", strconv.FormatUint(uint64(w.sb.VMID), 10), "owner", vm.Ref.Owner, "action", "left"),
		})
	}
	return w.cfg.Hypervisor.DestroyVM(ctx, w.ref())
}

// confirmGone asks for a second opinion before a VM is taken for gone.
func (w *work) confirmGone(ctx context.Context) error {
	vms, err := w.cfg.Hypervisor.ListVMs(ctx, w.sb.Owner, false)
	if err != nil {
		return fmt.Errorf("list VMs: %w", err)
	}
	for _, vm := range vms {
		if vm.Ref.Owner == w.sb.Owner {
			return fault.New(fault.Unavailable, "VM %d is said to be gone, but VM %d carries its mark", w.sb.VMID, vm.Ref.VMID)
		}
	}
	return nil
}

// vmLook gives a function that tells, not more often than Timing.CheckVM, what
// is wrong with the sandbox's VM; "" while it is on, or when nobody knows. It
// first looks after a tick: mostly what is waited for comes before.
func (w *work) vmLook() func(ctx context.Context) string {
	next := time.Now().Add(w.cfg.Timing.Tick)
	return func(ctx context.Context) string {
		if time.Now().Before(next) {
			return ""
		}
		next = time.Now().Add(w.cfg.Timing.CheckVM)
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		vm, err := w.cfg.Hypervisor.GetVM(ctx, w.ref())
		switch {
		case errors.Is(err, fault.NotFound) && w.confirmGone(ctx) == nil:
			return "the VM is gone"
		case err == nil && vm.Power == hypervisor.PowerOff:
			return "the VM stopped"
		}
		return "" // a plugin that is down says nothing about the VM
	}
}

// withConsole adds what the guest printed last to an error, if it can be had.
func (w *work) withConsole(ctx context.Context, err error) error {
	reader, ok := w.cfg.Hypervisor.(hypervisor.ConsoleReader)
	if !ok {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	b, readErr := reader.Console(ctx, w.ref())
	tail := printable(b)
	if readErr != nil || tail == "" {
		return err
	}
	return fault.New(fault.ClassOf(err), "%w; last lines of its console:\n%s", err, tail).WithHint("%s", fault.HintOf(err))
}

// printable is the end of untrusted text, safe for a terminal: at most
// consoleTail bytes in consoleLines lines.
func printable(b []byte) string {
	if len(b) > consoleTail {
		b = b[len(b)-consoleTail:]
	}
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, string(b)))
	if lines := strings.Split(text, "\n"); len(lines) > consoleLines {
		text = strings.Join(lines[len(lines)-consoleLines:], "\n")
	}
	return text
}
