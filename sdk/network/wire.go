package network

import (
	"github.com/agentlab/agentlab/sdk/internal/finding"
	"github.com/agentlab/agentlab/sdk/internal/proto/networkv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

var modes = map[Mode]networkv1.Mode{
	ModeOff:       networkv1.Mode_MODE_OFF,
	ModeNAT:       networkv1.Mode_MODE_NAT,
	ModeAllowlist: networkv1.Mode_MODE_ALLOWLIST,
}

// modeFromWire gives "" for a mode that is not known.
func modeFromWire(w networkv1.Mode) Mode {
	for m, known := range modes {
		if known == w {
			return m
		}
	}
	return ""
}

func hostToWire(h Host) *networkv1.Host {
	return &networkv1.Host{
		Bridge: h.Bridge, Subnet: h.Subnet, Address: h.Address, GuestTcpPorts: wire.Widen(h.GuestTCPPorts),
	}
}

func hostFromWire(w *networkv1.Host) (Host, error) {
	ports, err := wire.Ports(w.GetGuestTcpPorts())
	return Host{Bridge: w.GetBridge(), Subnet: w.GetSubnet(), Address: w.GetAddress(), GuestTCPPorts: ports}, err
}

func reportToWire(r ApplyReport) *networkv1.ApplyHostResponse {
	out := &networkv1.ApplyHostResponse{Changes: r.Changes, Findings: finding.ToWire(r.Findings)}
	for _, f := range r.Files {
		out.Files = append(out.Files, &networkv1.ManagedFile{
			Path: f.Path, Content: f.Content, Mode: f.Mode, AfterWrite: f.AfterWrite,
		})
	}
	return out
}

func reportFromWire(w *networkv1.ApplyHostResponse) ApplyReport {
	out := ApplyReport{Changes: w.GetChanges(), Findings: finding.FromWire(w.GetFindings())}
	for _, f := range w.GetFiles() {
		out.Files = append(out.Files, ManagedFile{
			Path: f.GetPath(), Content: f.GetContent(), Mode: f.GetMode(), AfterWrite: f.GetAfterWrite(),
		})
	}
	return out
}

func requestToWire(r AttachRequest) *networkv1.AttachRequest {
	out := &networkv1.AttachRequest{
		RequestId: r.RequestID, SandboxId: r.SandboxID, Generation: r.Generation, Bridge: r.Bridge,
		Interface: r.Interface, CreateInterface: r.CreateInterface, Mac: r.MAC, Address: r.Address, Mode: modes[r.Mode],
	}
	for _, a := range r.Allow {
		out.Allow = append(out.Allow, &networkv1.Allow{
			Cidr: a.CIDR, Protocol: a.Protocol, FirstPort: uint32(a.FirstPort), LastPort: uint32(a.LastPort),
		})
	}
	return out
}

func requestFromWire(w *networkv1.AttachRequest) (AttachRequest, error) {
	out := AttachRequest{
		RequestID: w.GetRequestId(), SandboxID: w.GetSandboxId(), Generation: w.GetGeneration(), Bridge: w.GetBridge(),
		Interface: w.GetInterface(), CreateInterface: w.GetCreateInterface(), MAC: w.GetMac(), Address: w.GetAddress(),
		Mode: modeFromWire(w.GetMode()),
	}
	for _, a := range w.GetAllow() {
		ports, err := wire.Ports([]uint32{a.GetFirstPort(), a.GetLastPort()})
		if err != nil {
			return out, err
		}
		out.Allow = append(out.Allow, Allow{
			CIDR: a.GetCidr(), Protocol: a.GetProtocol(), FirstPort: ports[0], LastPort: ports[1],
		})
	}
	return out, nil
}

func attachmentToWire(a Attachment) *networkv1.Attachment {
	return &networkv1.Attachment{
		InForce: requestToWire(a.InForce), Drifted: a.Drifted, Drift: a.Drift, DeniedPackets: a.DeniedPackets,
		InterfaceMade: a.InterfaceMade,
	}
}

func attachmentFromWire(w *networkv1.Attachment) (Attachment, error) {
	inForce, err := requestFromWire(w.GetInForce())
	return Attachment{
		InForce: inForce, Drifted: w.GetDrifted(), Drift: w.GetDrift(), DeniedPackets: w.GetDeniedPackets(),
		InterfaceMade: w.GetInterfaceMade(),
	}, err
}
