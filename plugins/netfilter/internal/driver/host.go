package driver

import (
	"context"
	"net/netip"
	"slices"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/flows"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/links"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// ApplyHost implements network.Driver. Rules come before the bridge and
// forwarding comes last, so nothing is reachable for a moment.
func (d *Driver) ApplyHost(ctx context.Context, wish network.Host) (network.ApplyReport, error) {
	var report network.ApplyReport
	host, err := policy.ParseHost(wish)
	if err != nil {
		return report, err
	}
	release, err := d.hold(ctx)
	if err != nil {
		return report, err
	}
	defer release()
	h, err := links.Open(ctx)
	if err != nil {
		return report, err
	}
	defer h.Close()
	v, err := d.look(ctx, h)
	if err != nil {
		return report, err
	}
	if err := d.checkHostChange(v, host); err != nil {
		return report, err
	}
	if report.Changes, err = d.applyHost(ctx, h, v, host); err != nil {
		return report, err
	}
	d.applied = true
	after, err := d.look(ctx, h)
	if err != nil {
		return report, err
	}
	report.Findings = d.findings(ctx, h, after, host)
	return report, nil
}

func (d *Driver) applyHost(ctx context.Context, h links.Handle, v view, host policy.Host) ([]string, error) {
	var changes []string
	changed, err := d.enforce(ctx, v, host, v.policies)
	if err != nil {
		return nil, err
	}
	if changed {
		changes = append(changes, "put the rules of tables bridge agentlab and inet agentlab in force")
	}
	made, err := d.applyBridge(h, v, host)
	changes = append(changes, made...)
	if err != nil {
		return changes, err
	}
	repaired, err := d.repairPorts(h, v, host)
	changes = append(changes, repaired...)
	if err != nil {
		return changes, err
	}
	set, err := links.Set(links.Forwarding)
	if err != nil {
		return changes, err
	}
	if set {
		changes = append(changes, "turned on IPv4 forwarding")
	}
	return changes, d.cutAll(ctx, v.policies, host)
}

// repairPorts puts back what happened to the ports of attached sandboxes. An
// interface that we did not make is never put into the bridge.
func (d *Driver) repairPorts(h links.Handle, v view, host policy.Host) ([]string, error) {
	var changes []string
	for _, p := range v.policies {
		link, ok := v.links[p.Interface]
		if !ok || len(d.linkDrift(v, p)) == 0 {
			continue
		}
		if p.MakeTap && d.checkTap(v, link, p) != nil || !p.MakeTap && link.Master != v.links[host.Bridge].Index {
			continue
		}
		if _, err := d.preparePort(h, p, host.Bridge); err != nil {
			return changes, err
		}
		changes = append(changes, "made "+p.Interface+" an isolated port of "+host.Bridge)
	}
	return changes, nil
}

// cutAll ends what the sandboxes' policies deny, once after each change of the
// rules: the host's table of connections may be large. A process that has just
// begun does not know what its predecessor still had to cut.
func (d *Driver) cutAll(ctx context.Context, policies []policy.Policy, host policy.Host) error {
	if d.cut || len(policies) == 0 {
		return nil
	}
	byAddress := make(map[netip.Addr]policy.Policy, len(policies))
	for _, p := range policies {
		byAddress[p.Address] = p
	}
	n, err := flows.Cut(ctx, func(f flows.Flow) bool {
		p, ours := byAddress[f.Source]
		return ours && !p.Permits(host, f.Destination, f.Protocol, f.DestinationPort)
	})
	if n > 0 {
		plugin.Log(ctx, d.log).Debug("denied connections cut")
	}
	d.cut = err == nil
	return err
}

// checkHostChange refuses a change that attached sandboxes would not survive.
func (d *Driver) checkHostChange(v view, host policy.Host) error {
	for _, name := range []string{d.cfg.WANInterface, d.cfg.TailnetInterface} {
		if name == host.Bridge {
			return fault.New(fault.Invalid, "the agent bridge %s cannot be the way out as well", host.Bridge)
		}
	}
	if !v.ways.NamesBridge {
		if other := otherBridge(v, host.Bridge); other != "" {
			return fault.New(fault.Unsupported, "this kernel cannot tell the ports of %s from those of %s", host.Bridge, other).
				WithHint("use a kernel with CONFIG_NFT_BRIDGE_META, or a network namespace without other bridges")
		}
	}
	if !v.ready || len(v.policies) == 0 {
		return nil
	}
	if v.host.Bridge != host.Bridge || v.host.Subnet != host.Subnet {
		return fault.New(fault.Precondition, "%d sandboxes are attached to %s with %s", len(v.policies), v.host.Bridge, v.host.Subnet).
			WithHint("destroy them before you change agent_bridge or agent_subnet")
	}
	for _, p := range v.policies {
		if p.Address == host.Address {
			return fault.New(fault.Exists, "%s is a sandbox's address", host.Address).WithHolder(p.SandboxID)
		}
	}
	return nil
}

func otherBridge(v view, ours string) string {
	for name, l := range v.links {
		if l.Kind == "bridge" && name != ours {
			return name
		}
	}
	return ""
}

// applyBridge makes the bridge, or completes one that is ours. A stranger's
// bridge is used as it is if it has the address, and never changed.
func (d *Driver) applyBridge(h links.Handle, v view, host policy.Host) ([]string, error) {
	var changes []string
	link, exists := v.links[host.Bridge]
	if !exists {
		if err := h.MakeBridge(host.Bridge); err != nil {
			return nil, err
		}
		changes = append(changes, "made bridge "+host.Bridge)
		all, err := h.List()
		if err != nil {
			return changes, err
		}
		link = all[host.Bridge]
	}
	if link.Kind != "bridge" {
		return changes, fault.New(fault.Exists, "interface %s exists and is not a bridge", host.Bridge).
			WithHint("set agent_bridge to another name")
	}
	ours, err := d.oursOrBlank(h, v, link)
	if err != nil {
		return changes, err
	}
	has, err := hasAddress(h, link, host)
	if err != nil {
		return changes, err
	}
	if !ours {
		if !has || !link.Up {
			return changes, fault.New(fault.Precondition, "bridge %s was made by something else and is down or lacks %s", link.Name, hostPrefix(host)).
				WithHint("ip address add %s dev %s && ip link set %s up, there where it is configured", hostPrefix(host), link.Name, link.Name)
		}
		return changes, nil
	}
	more, err := completeBridge(h, link, host, has)
	return append(changes, more...), err
}

func completeBridge(h links.Handle, link links.Link, host policy.Host, hasAddress bool) ([]string, error) {
	var changes []string
	if link.Alias != links.BridgeMark {
		if err := h.Mark(link, links.BridgeMark); err != nil {
			return nil, err
		}
	}
	for _, s := range links.BridgeSettings(link.Name) {
		set, err := links.Set(s)
		if err != nil {
			return changes, err
		}
		if set {
			changes = append(changes, "set net/"+s.Key+" to "+s.Value)
		}
	}
	if !hasAddress {
		if err := h.Assign(link, hostPrefix(host)); err != nil {
			return changes, err
		}
		changes = append(changes, "gave "+link.Name+" "+hostPrefix(host).String())
	}
	if !link.Up {
		if err := h.Raise(link); err != nil {
			return changes, err
		}
		changes = append(changes, "raised "+link.Name)
	}
	return changes, nil
}

// oursOrBlank reports whether we may change the bridge: it carries our mark, or
// it is as bare as one that we were interrupted in making.
func (d *Driver) oursOrBlank(h links.Handle, v view, link links.Link) (bool, error) {
	if link.Alias != "" {
		return link.Alias == links.BridgeMark, nil
	}
	if link.Up {
		return false, nil
	}
	for _, l := range v.links {
		if l.Master == link.Index {
			return false, nil
		}
	}
	addresses, err := h.AddressesOf(link)
	return len(addresses) == 0, err
}

func hostPrefix(host policy.Host) netip.Prefix {
	return netip.PrefixFrom(host.Address, host.Subnet.Bits())
}

func hasAddress(h links.Handle, link links.Link, host policy.Host) (bool, error) {
	addresses, err := h.AddressesOf(link)
	return slices.Contains(addresses, hostPrefix(host)), err
}
