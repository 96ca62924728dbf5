package driver

import (
	"context"
	"errors"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/flows"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/links"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Detach implements network.Driver. The tap goes first and the rules last, so
// the address is known until its connections are cut.
func (d *Driver) Detach(ctx context.Context, sandboxID string) error {
	if sandboxID == "" {
		return fault.New(fault.Invalid, "detach needs a sandbox id")
	}
	release, err := d.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	h, err := links.Open(ctx)
	if err != nil {
		return err
	}
	defer h.Close()
	v, err := d.look(ctx, h)
	if err != nil {
		return err
	}
	p, attached := v.policyOf(sandboxID)
	if attached && p.MakeTap {
		if err := d.removeTap(h, v, p); err != nil {
			return err
		}
	}
	for _, link := range v.links {
		id, ours := d.sandboxOf(link)
		if !ours || id != sandboxID || link.Kind != "tuntap" {
			continue
		}
		if err := h.Remove(link); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	if !attached {
		return nil
	}
	if _, err := flows.Cut(ctx, func(f flows.Flow) bool { return touches(f, p) }); err != nil {
		return err
	}
	if !v.ready {
		return fault.New(fault.Precondition, "the agentlab tables do not say whose host they are").
			WithHint("apply the host set-up again")
	}
	_, err = d.enforce(ctx, v, v.host, v.without(sandboxID))
	return err
}
