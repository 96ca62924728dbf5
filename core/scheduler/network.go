package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// attachTimeout bounds a restored attachment: whoever detaches waits for it.
const attachTimeout = 30 * time.Second

// applyHost makes the host's side of the agent network so, and tells what it
// had to change and what it finds wanting, the latter when that is news.
func (s *Scheduler) applyHost(ctx context.Context) error {
	report, err := s.cfg.Network.ApplyHost(ctx, s.cfg.HostNetwork)
	if err != nil {
		return fmt.Errorf("apply the agent network: %w", err)
	}
	report.Findings = slices.DeleteFunc(report.Findings, func(f plugin.Finding) bool { return f.Level == plugin.LevelOK })
	s.mu.Lock()
	news := !slices.Equal(s.findings, report.Findings)
	s.applied, s.findings = true, report.Findings
	s.mu.Unlock()
	for _, f := range report.Findings {
		if news {
			s.log.Warn("agent network", "finding", f.ID, "err", f.Message, "hint", f.Fix)
		}
	}
	if len(report.Changes) == 0 {
		return nil
	}
	changes := strings.Join(report.Changes, "; ")
	s.log.Info("agent network changed", "changes", changes)
	return s.cfg.Store.AppendEvent(ctx, lab.Event{Type: lab.EventNetworkApplied, Message: changes})
}

// hostApplied is applyHost unless that was done since we started.
func (s *Scheduler) hostApplied(ctx context.Context) error {
	s.mu.Lock()
	done := s.applied
	s.mu.Unlock()
	if done {
		return nil
	}
	return s.applyHost(ctx)
}

// keepNetwork puts back what something else took away: the host's side, then
// the policies of sandboxes that are up. The rules live in the kernel, so a
// restart of the plugin loses none, but a flushed ruleset shuts nothing.
func (s *Scheduler) keepNetwork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.CallTimeout)
	defer cancel()
	if err := s.applyHost(ctx); err != nil {
		return err
	}
	up, err := s.cfg.Store.Sandboxes(ctx, state.SandboxFilter{States: []lab.SandboxState{lab.SandboxReady, lab.SandboxRunning}})
	if err != nil || len(up) == 0 {
		return err
	}
	found, err := s.cfg.Network.ListAttachments(ctx, "")
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	var errs []error
	for _, sb := range up {
		errs = append(errs, s.keepAttached(ctx, sb.ID, found))
	}
	return errors.Join(errs...)
}

// linkMade is for people: no driver can join a running VM to a link again.
const linkMade = "its link was gone and had to be made anew: the VM has no network until it is stopped and started"

// keepAttached attaches the sandbox again unless its policy is in force. While
// it does, nothing is detached: a sandbox that goes must not come back.
func (s *Scheduler) keepAttached(ctx context.Context, id string, found []network.Attachment) error {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	sb, err := s.cfg.Store.Sandbox(ctx, id)
	if err != nil || sb.State != lab.SandboxReady && sb.State != lab.SandboxRunning {
		return err
	}
	open, err := s.cfg.Store.Operations(ctx, state.OperationFilter{Subject: id, Open: true})
	if err != nil || slices.ContainsFunc(open, func(o lab.Operation) bool { return o.Kind != lab.OpRunJob }) {
		return err
	}
	req, err := s.attachRequest(ctx, sb)
	if err != nil {
		return err
	}
	drift := "its rules were gone"
	if i := slices.IndexFunc(found, func(a network.Attachment) bool { return a.InForce.SandboxID == id }); i >= 0 {
		if drift = differs(found[i], req); drift == "" {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	s.log.Warn("policy is not in force, attaching again", "sandbox", id, "vmid", sb.VMID, "err", drift)
	got, err := s.attach(ctx, req)
	if err != nil {
		return fmt.Errorf("attach sandbox %s again: %w", id, err)
	}
	message := drift
	if got.InterfaceMade {
		message += "; " + linkMade
		s.log.Warn("link was made anew, its VM has no network", "sandbox", id, "vmid", sb.VMID, "hint", linkMade)
	}
	return s.cfg.Store.AppendEvent(ctx, lab.Event{
		Type: lab.EventPolicyRestored, SandboxID: id, JobID: sb.JobID, Message: message, Fields: with(nil, "drift", drift),
	})
}

// attachRequest is the policy that the sandbox shall have. It is told by rows
// alone: a hypervisor plugin that is down must not keep a policy from its place.
func (s *Scheduler) attachRequest(ctx context.Context, sb lab.Sandbox) (network.AttachRequest, error) {
	held, err := s.cfg.Store.Reservation(ctx, sb.ID)
	if err != nil {
		return network.AttachRequest{}, err
	}
	rules, err := lab.ParseAllow(sb.Spec.NetworkAllow)
	if err != nil {
		return network.AttachRequest{}, fault.New(fault.Invalid, "%w", err)
	}
	req := network.AttachRequest{
		RequestID: "keep", SandboxID: sb.ID, Generation: sb.Generation, Bridge: s.cfg.Bridge,
		Interface: sb.Interface, CreateInterface: !held.CreatesInterface, MAC: sb.MAC,
		Address: sb.Address.String(), Mode: network.Mode(sb.Spec.NetworkMode),
	}
	for _, r := range rules {
		req.Allow = append(req.Allow, network.Allow{CIDR: r.Prefix.String(), Protocol: r.Protocol, FirstPort: r.FirstPort, LastPort: r.LastPort})
	}
	return req, nil
}

// detach waits until no attachment is being restored.
func (s *Scheduler) detach(ctx context.Context, sandboxID string) error {
	s.attaching.RLock()
	defer s.attaching.RUnlock()
	return s.cfg.Network.Detach(ctx, sandboxID)
}

// attach puts the policy in force and reads back that it is.
func (s *Scheduler) attach(ctx context.Context, req network.AttachRequest) (network.Attachment, error) {
	got, err := s.cfg.Network.Attach(ctx, req)
	if err != nil {
		return got, err
	}
	if what := differs(got, req); what != "" {
		return got, fault.New(fault.Internal, "network policy %s is not in force as asked: %s", req.Mode, what)
	}
	return got, nil
}

// differs says what is in force other than asked; "" when nothing is.
func differs(got network.Attachment, req network.AttachRequest) string {
	is := got.InForce
	switch {
	case got.Drifted:
		return got.Drift
	case is.Mode != req.Mode || is.Address != req.Address || is.MAC != req.MAC || is.Interface != req.Interface:
		return fmt.Sprintf("%s has mode %s, address %s and MAC %s", is.Interface, is.Mode, is.Address, is.MAC)
	case is.Generation != req.Generation || is.Bridge != req.Bridge || is.CreateInterface != req.CreateInterface:
		return fmt.Sprintf("%s is attached to %s by generation %d", is.Interface, is.Bridge, is.Generation)
	case !maps.Equal(opened(is), opened(req)):
		return fmt.Sprintf("%s may reach other destinations", is.Interface)
	}
	return ""
}

// opened is what a policy allows: order and repetitions do not matter.
func opened(req network.AttachRequest) map[network.Allow]bool {
	all := make(map[network.Allow]bool, len(req.Allow))
	for _, a := range req.Allow {
		all[a] = true
	}
	return all
}
