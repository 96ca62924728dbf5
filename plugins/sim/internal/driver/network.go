package driver

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Network is a simulated network.
type Network struct{ world *world.World }

var _ network.Driver = (*Network)(nil)

// NewNetwork makes the driver.
func NewNetwork(w *world.World) *Network { return &Network{world: w} }

// CheckHost tells whether ApplyHost came before.
func (n *Network) CheckHost(ctx context.Context, host network.Host) (out []plugin.Finding, err error) {
	if err := n.world.Reach(ctx, "network.check", ""); err != nil {
		return nil, err
	}
	err = n.world.View(ctx, func(tx *world.Tx) error {
		have, _, err := tx.Host()
		f := plugin.Finding{ID: "bridge", Level: plugin.LevelOK, Message: "bridge " + host.Bridge + " is set up"}
		if !sameHost(have, host) {
			f.Level, f.Message, f.Fix = plugin.LevelMissing, "bridge "+host.Bridge+" is not set up", "agentlab network apply"
		}
		out = []plugin.Finding{f}
		return err
	})
	return out, err
}

// ApplyHost records the wish.
func (n *Network) ApplyHost(ctx context.Context, host network.Host) (report network.ApplyReport, err error) {
	if err := n.world.Reach(ctx, "network.apply", ""); err != nil {
		return network.ApplyReport{}, err
	}
	if _, err := netip.ParsePrefix(host.Subnet); err != nil || host.Bridge == "" {
		return network.ApplyReport{}, fault.New(fault.Invalid, "a host needs a bridge and a subnet")
	}
	err = n.world.Change(ctx, func(tx *world.Tx) error {
		have, _, err := tx.Host()
		if err != nil || sameHost(have, host) {
			return err
		}
		report.Changes = []string{"set up bridge " + host.Bridge}
		tx.Record(world.Effect{Op: "network.apply", Subject: host.Bridge})
		return tx.PutHost(host)
	})
	if err != nil {
		return network.ApplyReport{}, err
	}
	return report, nil
}

func sameHost(a, b network.Host) bool {
	return a.Bridge == b.Bridge && a.Subnet == b.Subnet && a.Address == b.Address && slices.Equal(a.GuestTCPPorts, b.GuestTCPPorts)
}

// Attach records the policy.
func (n *Network) Attach(ctx context.Context, req network.AttachRequest) (out network.Attachment, err error) {
	if err := n.world.Reach(ctx, "network.attach", req.SandboxID); err != nil {
		return network.Attachment{}, err
	}
	if err := checkAttach(req); err != nil {
		return network.Attachment{}, err
	}
	req.RequestID = ""
	err = n.world.Change(ctx, func(tx *world.Tx) error {
		if err := vacant(tx, req); err != nil {
			return err
		}
		have, found, err := tx.Attachment(req.SandboxID)
		if err != nil {
			return err
		}
		if found && have.Generation > req.Generation {
			return fault.New(fault.Conflict, "policy of %s is at generation %d, newer than %d", req.SandboxID, have.Generation, req.Generation)
		}
		if found && samePolicy(have.AttachRequest, req) && have.Drift == "" {
			out = inForce(have)
			return nil
		}
		have = world.Attachment{AttachRequest: req, DeniedPackets: have.DeniedPackets}
		out = inForce(have)
		tx.Record(world.Effect{Op: "network.attach", Subject: req.SandboxID, Detail: string(req.Mode)})
		return tx.PutAttachment(have)
	})
	if err != nil {
		return network.Attachment{}, err
	}
	return out, nil
}

func samePolicy(a, b network.AttachRequest) bool {
	allow := slices.Equal(a.Allow, b.Allow)
	return allow && a.SandboxID == b.SandboxID && a.Generation == b.Generation && a.Bridge == b.Bridge &&
		a.Interface == b.Interface && a.CreateInterface == b.CreateInterface && a.MAC == b.MAC &&
		a.Address == b.Address && a.Mode == b.Mode
}

func checkAttach(req network.AttachRequest) error {
	addr, err := netip.ParseAddr(req.Address)
	_, macErr := net.ParseMAC(req.MAC)
	switch {
	case safeName(req.SandboxID) == "":
		return fault.New(fault.Invalid, "%q is not the id of a sandbox", req.SandboxID)
	case err != nil || !addr.Is4():
		return fault.New(fault.Invalid, "%q is not an IPv4 address", req.Address)
	case macErr != nil:
		return fault.New(fault.Invalid, "%q is not a MAC address", req.MAC)
	case safeName(req.Interface) == "" || len(req.Interface) > 15:
		return fault.New(fault.Invalid, "%q is not the name of an interface", req.Interface)
	case !slices.Contains([]network.Mode{network.ModeOff, network.ModeNAT, network.ModeAllowlist}, req.Mode):
		return fault.New(fault.Unsupported, "network mode %q is not known", req.Mode)
	}
	for _, a := range req.Allow {
		if _, err := netip.ParsePrefix(a.CIDR); err != nil || a.FirstPort > a.LastPort {
			return fault.New(fault.Invalid, "%q is not a destination that can be allowed", a.CIDR)
		}
	}
	return nil
}

// safeName is s when it is fit to name a file or an interface, else "".
func safeName(s string) string {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' {
			return ""
		}
	}
	return s
}

// vacant refuses what another sandbox uses, and a bridge that is not there.
func vacant(tx *world.Tx, req network.AttachRequest) error {
	host, _, err := tx.Host()
	if err != nil {
		return err
	}
	if host.Bridge != req.Bridge {
		return fault.New(fault.Precondition, "bridge %s is not set up", req.Bridge).WithHint("agentlab network apply")
	}
	all, err := tx.Attachments()
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.SandboxID != req.SandboxID && (a.Interface == req.Interface || a.Address == req.Address || a.MAC == req.MAC) {
			return fault.New(fault.Exists, "interface %s, its MAC or its address is in use", req.Interface).WithHolder(a.SandboxID)
		}
	}
	return nil
}

// Detach forgets the policy. A machine that is on is shut in from then on.
func (n *Network) Detach(ctx context.Context, sandboxID string) error {
	if err := n.world.Reach(ctx, "network.detach", sandboxID); err != nil {
		return err
	}
	if safeName(sandboxID) == "" {
		return fault.New(fault.Invalid, "%q is not the id of a sandbox", sandboxID)
	}
	return n.world.Change(ctx, func(tx *world.Tx) error {
		_, found, err := tx.Attachment(sandboxID)
		if err != nil || !found {
			return err
		}
		tx.Record(world.Effect{Op: "network.detach", Subject: sandboxID})
		tx.DeleteAttachment(sandboxID)
		return nil
	})
}

// ListAttachments reads the policies back.
func (n *Network) ListAttachments(ctx context.Context, sandboxID string) (out []network.Attachment, err error) {
	if err := n.world.Reach(ctx, "network.list", sandboxID); err != nil {
		return nil, err
	}
	err = n.world.View(ctx, func(tx *world.Tx) error {
		all, err := tx.Attachments()
		for _, a := range all {
			if sandboxID == "" || a.SandboxID == sandboxID {
				out = append(out, inForce(a))
			}
		}
		return err
	})
	return out, err
}

func inForce(a world.Attachment) network.Attachment {
	return network.Attachment{InForce: a.AttachRequest, Drifted: a.Drift != "", Drift: a.Drift, DeniedPackets: a.DeniedPackets}
}
