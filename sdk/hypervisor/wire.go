package hypervisor

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/agentlab/agentlab/sdk/internal/finding"
	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
)

var powers = map[Power]hypervisorv1.Power{
	PowerOff:        hypervisorv1.Power_POWER_OFF,
	PowerShutdown:   hypervisorv1.Power_POWER_SHUTDOWN,
	PowerOn:         hypervisorv1.Power_POWER_ON,
	PowerPaused:     hypervisorv1.Power_POWER_PAUSED,
	PowerHibernated: hypervisorv1.Power_POWER_HIBERNATED,
}

// powerFromWire gives "" for a power state that is not known.
func powerFromWire(w hypervisorv1.Power) Power {
	for p, known := range powers {
		if known == w {
			return p
		}
	}
	return ""
}

var ways = map[Way]hypervisorv1.Start_Way{
	WayBoot:   hypervisorv1.Start_WAY_BOOT,
	WayMemory: hypervisorv1.Start_WAY_MEMORY,
}

func refToWire(r Ref) *hypervisorv1.VMRef {
	return &hypervisorv1.VMRef{RequestId: r.RequestID, Vmid: r.VMID, Node: r.Node, ExpectOwner: r.Owner}
}

func refFromWire(w *hypervisorv1.VMRef) Ref {
	return Ref{RequestID: w.GetRequestId(), VMID: w.GetVmid(), Node: w.GetNode(), Owner: w.GetExpectOwner()}
}

func nicToWire(n NIC) *hypervisorv1.Nic {
	return &hypervisorv1.Nic{
		Bridge: n.Bridge, Mac: n.MAC, Tap: n.Tap, AddressCidr: n.AddressCIDR, Gateway: n.Gateway, Dns: n.DNS,
	}
}

func nicFromWire(w *hypervisorv1.Nic) NIC {
	return NIC{
		Bridge: w.GetBridge(), MAC: w.GetMac(), Tap: w.GetTap(),
		AddressCIDR: w.GetAddressCidr(), Gateway: w.GetGateway(), DNS: w.GetDns(),
	}
}

func vmToWire(v VM) *hypervisorv1.VM {
	out := &hypervisorv1.VM{
		Ref: refToWire(v.Ref), Name: v.Name, Power: powers[v.Power], Lock: v.Lock, Nic: nicToWire(v.NIC),
		Cores: v.Cores, MemoryBytes: v.MemoryBytes, HostInterface: v.HostInterface,
	}
	if !v.Started.IsZero() {
		out.Started = timestamppb.New(v.Started)
	}
	if v.Start != (Start{}) {
		out.Start = &hypervisorv1.Start{Way: ways[v.Start.Way], Reason: v.Start.Reason}
	}
	return out
}

func vmFromWire(w *hypervisorv1.VM) VM {
	out := VM{
		Ref: refFromWire(w.GetRef()), Name: w.GetName(), Power: powerFromWire(w.GetPower()), Lock: w.GetLock(),
		NIC: nicFromWire(w.GetNic()), Cores: w.GetCores(), MemoryBytes: w.GetMemoryBytes(), HostInterface: w.GetHostInterface(),
	}
	if w.GetStarted().IsValid() {
		out.Started = w.GetStarted().AsTime()
	}
	for way, known := range ways {
		if known == w.GetStart().GetWay() {
			out.Start = Start{Way: way, Reason: w.GetStart().GetReason()}
		}
	}
	return out
}

func createToWire(r CreateRequest) *hypervisorv1.CreateVMRequest {
	return &hypervisorv1.CreateVMRequest{
		Ref: refToWire(r.Ref), Name: r.Name, Template: r.Template, Cores: r.Cores,
		MemoryBytes: r.MemoryBytes, RootDiskBytes: r.RootDiskBytes, Nic: nicToWire(r.NIC),
		Seed: &hypervisorv1.Seed{
			UserData: r.Seed.UserData, MetaData: r.Seed.MetaData, NetworkConfig: r.Seed.NetworkConfig,
		},
	}
}

func createFromWire(w *hypervisorv1.CreateVMRequest) CreateRequest {
	return CreateRequest{
		Ref: refFromWire(w.GetRef()), Name: w.GetName(), Template: w.GetTemplate(), Cores: w.GetCores(),
		MemoryBytes: w.GetMemoryBytes(), RootDiskBytes: w.GetRootDiskBytes(), NIC: nicFromWire(w.GetNic()),
		Seed: Seed{
			UserData: w.GetSeed().GetUserData(), MetaData: w.GetSeed().GetMetaData(),
			NetworkConfig: w.GetSeed().GetNetworkConfig(),
		},
	}
}

func progressToWire(p Progress) *hypervisorv1.Progress {
	return &hypervisorv1.Progress{Phase: p.Phase, Fraction: p.Fraction, BytesDone: p.BytesDone, BytesTotal: p.BytesTotal}
}

func progressFromWire(w *hypervisorv1.Progress) Progress {
	return Progress{
		Phase: w.GetPhase(), Fraction: w.GetFraction(), BytesDone: w.GetBytesDone(), BytesTotal: w.GetBytesTotal(),
	}
}

func templateToWire(t Template) *hypervisorv1.Template {
	out := &hypervisorv1.Template{
		Vmid: t.VMID, Name: t.Name, Version: t.Version, SshUser: t.SSHUser,
		Agents: t.Agents, Findings: finding.ToWire(t.Findings),
	}
	for _, m := range t.Memory {
		out.Memory = append(out.Memory, &hypervisorv1.MemoryTemplate{
			Cores: m.Cores, MemoryBytes: m.MemoryBytes, RootDiskBytes: m.RootDiskBytes,
			Created: timestamppb.New(m.Created), DiskBytes: m.DiskBytes,
		})
	}
	return out
}

func templateFromWire(w *hypervisorv1.Template) Template {
	out := Template{
		VMID: w.GetVmid(), Name: w.GetName(), Version: w.GetVersion(), SSHUser: w.GetSshUser(),
		Agents: w.GetAgents(), Findings: finding.FromWire(w.GetFindings()),
	}
	for _, m := range w.GetMemory() {
		out.Memory = append(out.Memory, MemoryTemplate{
			Cores: m.GetCores(), MemoryBytes: m.GetMemoryBytes(), RootDiskBytes: m.GetRootDiskBytes(),
			Created: m.GetCreated().AsTime(), DiskBytes: m.GetDiskBytes(),
		})
	}
	return out
}

func warmToWire(r WarmRequest) *hypervisorv1.WarmTemplateRequest {
	return &hypervisorv1.WarmTemplateRequest{
		RequestId: r.RequestID, Template: r.Template, Cores: r.Cores, MemoryBytes: r.MemoryBytes, RootDiskBytes: r.RootDiskBytes,
	}
}

func warmFromWire(w *hypervisorv1.WarmTemplateRequest) WarmRequest {
	return WarmRequest{
		RequestID: w.GetRequestId(), Template: w.GetTemplate(), Cores: w.GetCores(),
		MemoryBytes: w.GetMemoryBytes(), RootDiskBytes: w.GetRootDiskBytes(),
	}
}

func reportToWire(r HostReport) *hypervisorv1.CheckHostResponse {
	return &hypervisorv1.CheckHostResponse{
		Findings: finding.ToWire(r.Findings), Cores: r.Cores, MemoryBytes: r.MemoryBytes,
		MemoryFreeBytes: r.MemoryFreeBytes, DiskFreeBytes: r.DiskFreeBytes, VmidFirst: r.VMIDFirst,
		VmidLast: r.VMIDLast, InterfacePattern: r.InterfacePattern, CreatesInterface: r.CreatesInterface,
	}
}

func reportFromWire(w *hypervisorv1.CheckHostResponse) HostReport {
	return HostReport{
		Findings: finding.FromWire(w.GetFindings()), Cores: w.GetCores(), MemoryBytes: w.GetMemoryBytes(),
		MemoryFreeBytes: w.GetMemoryFreeBytes(), DiskFreeBytes: w.GetDiskFreeBytes(), VMIDFirst: w.GetVmidFirst(),
		VMIDLast: w.GetVmidLast(), InterfacePattern: w.GetInterfacePattern(), CreatesInterface: w.GetCreatesInterface(),
	}
}

func statsToWire(s Stats) *hypervisorv1.Stats {
	return &hypervisorv1.Stats{
		CpuFraction: s.CPUFraction, Window: durationpb.New(s.Window), MemoryUsedBytes: s.MemoryUsedBytes,
		NetRxBytes: s.NetRxBytes, NetTxBytes: s.NetTxBytes,
	}
}

func statsFromWire(w *hypervisorv1.Stats) Stats {
	return Stats{
		CPUFraction: w.GetCpuFraction(), Window: max(w.GetWindow().AsDuration(), time.Duration(0)),
		MemoryUsedBytes: w.GetMemoryUsedBytes(), NetRxBytes: w.GetNetRxBytes(), NetTxBytes: w.GetNetTxBytes(),
	}
}
