package driver

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/links"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/ruleset"
	"github.com/agentlab/agentlab/sdk/network"
)

// ListAttachments implements network.Driver.
func (d *Driver) ListAttachments(ctx context.Context, sandboxID string) ([]network.Attachment, error) {
	release, err := d.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	h, err := links.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	v, err := d.look(ctx, h)
	if err != nil {
		return nil, err
	}
	out := d.attachments(v)
	if sandboxID != "" {
		out = slices.DeleteFunc(out, func(a network.Attachment) bool { return a.InForce.SandboxID != sandboxID })
	}
	return out, nil
}

// attachments compares rules and links with what they should be. A tap of ours
// without rules is listed too: it is what a flushed ruleset leaves behind.
func (d *Driver) attachments(v view) []network.Attachment {
	differences := map[string][]string{}
	for _, f := range ruleset.Differences(v.tables, ruleset.Build(v.host, v.ways, v.policies), v.policies) {
		differences[f.Sandbox] = append(differences[f.Sandbox], f.Text)
	}
	var out []network.Attachment
	for _, p := range v.policies {
		drift := append(slices.Clone(differences[p.SandboxID]), differences[""]...)
		drift = append(drift, d.linkDrift(v, p)...)
		out = append(out, network.Attachment{
			InForce: p.Request(v.host.Bridge), Drifted: len(drift) > 0, Drift: strings.Join(drift, "; "),
			DeniedPackets: ruleset.Denied(v.tables, p),
		})
	}
	for _, link := range v.links {
		id, ours := d.sandboxOf(link)
		if !ours {
			continue
		}
		if _, known := v.policyOf(id); known {
			continue
		}
		out = append(out, network.Attachment{
			InForce: network.AttachRequest{SandboxID: id, Interface: link.Name, CreateInterface: true},
			Drifted: true, Drift: "interface " + link.Name + " has no rules",
		})
	}
	slices.SortFunc(out, func(a, b network.Attachment) int { return cmp.Compare(a.InForce.SandboxID, b.InForce.SandboxID) })
	return out
}

func (d *Driver) linkDrift(v view, p policy.Policy) []string {
	link, ok := v.links[p.Interface]
	if !ok {
		if p.MakeTap {
			return []string{"interface " + p.Interface + " is missing"}
		}
		return nil
	}
	bridge := v.links[v.host.Bridge]
	return portDrift(link, bridge, p.MakeTap, d.mark(p.SandboxID))
}

func portDrift(link, bridge links.Link, made bool, mark string) []string {
	var out []string
	wrong := func(is bool, text string) {
		if is {
			out = append(out, "interface "+link.Name+" "+text)
		}
	}
	wrong(bridge.Index == 0 || link.Master != bridge.Index, "is not a port of the agent bridge")
	wrong(!link.Isolated, "is not isolated")
	wrong(link.Learning, "learns addresses")
	wrong(link.Flood, "gets unknown frames")
	if made {
		wrong(!link.Up, "is down")
		wrong(link.Kind != "tuntap" || link.Alias != mark, "was not made for this sandbox")
	}
	return out
}
