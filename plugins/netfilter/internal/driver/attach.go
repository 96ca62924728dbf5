package driver

import (
	"context"
	"errors"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/flows"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/links"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Attach implements network.Driver.
func (d *Driver) Attach(ctx context.Context, req network.AttachRequest) (network.Attachment, error) {
	release, err := d.hold(ctx)
	if err != nil {
		return network.Attachment{}, err
	}
	defer release()
	h, err := links.Open(ctx)
	if err != nil {
		return network.Attachment{}, err
	}
	defer h.Close()
	before, err := d.look(ctx, h)
	if err != nil {
		return network.Attachment{}, err
	}
	if !before.ready {
		return network.Attachment{}, fault.New(fault.Precondition, "the host's side of the agent network is not set up").
			WithHint("apply the host set-up first")
	}
	own, err := h.Addresses()
	if err != nil {
		return network.Attachment{}, err
	}
	p, err := policy.Parse(req, before.host, own)
	if err != nil {
		return network.Attachment{}, err
	}
	if err := d.checkFree(h, before, p); err != nil {
		return network.Attachment{}, err
	}
	a, err := d.attach(ctx, h, before, p)
	if err != nil {
		return network.Attachment{}, errors.Join(err, d.undoAttach(ctx, h, before, p))
	}
	plugin.Log(ctx, d.log).Debug("sandbox attached", "sandbox", p.SandboxID)
	return a, nil
}

// attach makes the change: rules first, so that the port is bound before it
// carries its first frame.
func (d *Driver) attach(ctx context.Context, h links.Handle, before view, p policy.Policy) (network.Attachment, error) {
	if _, err := d.enforce(ctx, before, before.host, before.with(p)); err != nil {
		return network.Attachment{}, err
	}
	old, existed := before.policyOf(p.SandboxID)
	if existed && old.MakeTap && (old.Interface != p.Interface || !p.MakeTap) {
		if err := d.removeTap(h, before, old); err != nil {
			return network.Attachment{}, err
		}
	}
	made, err := d.preparePort(h, p, before.host.Bridge)
	if err != nil {
		return network.Attachment{}, err
	}
	if err := d.cutDenied(ctx, before, p, existed); err != nil {
		return network.Attachment{}, err
	}
	after, err := d.look(ctx, h)
	if err != nil {
		return network.Attachment{}, err
	}
	for _, a := range d.attachments(after) {
		if a.InForce.SandboxID != p.SandboxID {
			continue
		}
		if a.Drifted {
			return network.Attachment{}, fault.New(fault.Conflict, "the policy is not in force: %s", a.Drift).
				WithHint("something else changes the agentlab tables or links, try again")
		}
		a.InterfaceMade = made
		return a, nil
	}
	return network.Attachment{}, fault.New(fault.Conflict, "the policy is gone right after it was applied").
		WithHint("something else changes the agentlab tables, try again")
}

// checkFree refuses what would take something from somebody else. It changes
// nothing.
func (d *Driver) checkFree(h links.Handle, v view, p policy.Policy) error {
	for _, other := range v.policies {
		if other.SandboxID == p.SandboxID {
			if other.Generation > p.Generation {
				return fault.New(fault.Conflict, "generation %d is older than %d, which is in force", p.Generation, other.Generation)
			}
			continue
		}
		what := ""
		switch {
		case other.Interface == p.Interface:
			what = "interface " + p.Interface
		case other.Address == p.Address:
			what = "address " + p.Address.String()
		case other.MAC == p.MAC:
			what = "MAC " + p.MAC
		default:
			continue
		}
		return fault.New(fault.Exists, "%s is another sandbox's", what).WithResource("%s", what).WithHolder(other.SandboxID)
	}
	bridge, ok := v.links[v.host.Bridge]
	if !ok || bridge.Kind != "bridge" {
		return fault.New(fault.Precondition, "there is no bridge %s", v.host.Bridge).WithHint("apply the host set-up first")
	}
	if p.Interface == "lo" || p.Interface == d.cfg.WANInterface || p.Interface == d.cfg.TailnetInterface {
		return fault.New(fault.Invalid, "%s is the host's own interface", p.Interface)
	}
	link, ok := v.links[p.Interface]
	if !ok {
		return nil
	}
	if p.MakeTap {
		return d.checkTap(v, link, p)
	}
	// Rules for an interface shut it to this host: never for one of its own.
	if link.Master != bridge.Index {
		return fault.New(fault.Precondition, "%s exists and is not a port of %s", p.Interface, bridge.Name)
	}
	return nil
}

// checkTap accepts a tap that an earlier, perhaps interrupted, Attach of this
// sandbox made.
func (d *Driver) checkTap(v view, link links.Link, p policy.Policy) error {
	old, existed := v.policyOf(p.SandboxID)
	unmarked := existed && old.MakeTap && old.Interface == p.Interface && link.Alias == ""
	if link.Kind == "tuntap" && (link.Alias == d.mark(p.SandboxID) || unmarked) {
		return nil
	}
	return fault.New(fault.Exists, "interface %s exists and was not made for this sandbox", p.Interface).
		WithResource("interface %s", p.Interface).WithHolder(link.Alias).
		WithHint("look at `ip -details link show %s`; remove it if nothing needs it", p.Interface)
}

// preparePort makes the interface a port as it must be, and the interface
// itself when that is missing and ours to make.
func (d *Driver) preparePort(h links.Handle, p policy.Policy, bridgeName string) (made bool, err error) {
	all, err := h.List()
	if err != nil {
		return false, err
	}
	link, exists := all[p.Interface]
	if !exists {
		if !p.MakeTap {
			return false, nil // the hypervisor makes it later; the rules wait for its name
		}
		if err := links.MakeTap(p.Interface); err != nil {
			return false, err
		}
		made = true
		if all, err = h.List(); err != nil {
			return made, err
		}
		link = all[p.Interface]
	}
	if p.MakeTap {
		if err := h.Mark(link, d.mark(p.SandboxID)); err != nil {
			return made, err
		}
	}
	if err := h.Join(link, all[bridgeName], p.MAC); err != nil {
		return made, err
	}
	if !p.MakeTap {
		return made, nil
	}
	return made, h.Raise(link)
}

// cutDenied ends the connections that the policy does not permit, and all of an
// address that is new to its holder.
func (d *Driver) cutDenied(ctx context.Context, before view, p policy.Policy, existed bool) error {
	old, _ := before.policyOf(p.SandboxID)
	n, err := flows.Cut(ctx, func(f flows.Flow) bool {
		if existed && old.Address == p.Address {
			return f.Source == p.Address && !p.Permits(before.host, f.Destination, f.Protocol, f.DestinationPort)
		}
		return touches(f, p) || existed && touches(f, old)
	})
	if n > 0 {
		plugin.Log(ctx, d.log).Debug("denied connections cut", "sandbox", p.SandboxID)
	}
	return err
}

func touches(f flows.Flow, p policy.Policy) bool {
	return f.Source == p.Address || f.Destination == p.Address
}

// removeTap deletes the tap that was made for p, if it is there and ours.
func (d *Driver) removeTap(h links.Handle, v view, p policy.Policy) error {
	link, ok := v.links[p.Interface]
	if !ok || link.Kind != "tuntap" || link.Alias != d.mark(p.SandboxID) && link.Alias != "" {
		return nil
	}
	err := h.Remove(link)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// undoAttach brings back what was in force before a failed call. Should that
// fail as well, the sandbox stays as the rules have it, which is never more than
// was asked for.
func (d *Driver) undoAttach(ctx context.Context, h links.Handle, before view, p policy.Policy) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	now, err := d.look(ctx, h)
	if err != nil {
		return err
	}
	if _, existed := before.links[p.Interface]; p.MakeTap && !existed {
		if err := d.removeTap(h, now, p); err != nil {
			return err
		}
	}
	_, err = d.enforce(ctx, now, before.host, before.policies)
	return err
}
