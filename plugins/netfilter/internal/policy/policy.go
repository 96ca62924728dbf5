package policy

import (
	"bytes"
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

// Host is the agent network's host side, parsed.
type Host struct {
	Bridge  string
	Subnet  netip.Prefix
	Address netip.Addr
	Ports   []uint16 // TCP ports on Address open to sandboxes, ascending
}

// Policy is one sandbox's wish, parsed, each part in its one spelling. Allow
// keeps the order of the request, without repetitions; read back from the
// kernel it may hold entries that are lost.
type Policy struct {
	SandboxID  string
	Generation uint64
	Interface  string
	MakeTap    bool
	MAC        string // lower case, colons
	Address    netip.Addr
	Mode       network.Mode
	Allow      []Allow
}

// Allow is one opened destination. Protocol is "" for any; First is 0 for all
// ports, and Last is then 0 too.
type Allow struct {
	Prefix      netip.Prefix
	Protocol    string
	First, Last uint16
}

// Lost reports whether this stands for an entry of which only its place is
// known: its rule is gone from the kernel.
func (a Allow) Lost() bool { return !a.Prefix.IsValid() }

// Limits of names: an nft comment holds 128 bytes, and it must hold the id with
// everything else that identifies an attachment.
var (
	sandboxID     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$`)
	interfaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,14}$`)
)

// MaxAllow is how many destinations one sandbox may list.
const MaxAllow = 256

// ValidInterface reports whether name can name a network interface here. It is
// stricter than the kernel: no wildcard, quote or space gets into a rule.
func ValidInterface(name string) bool { return interfaceName.MatchString(name) }

// ParseHost checks the host's side of the agent network.
func ParseHost(h network.Host) (Host, error) {
	var out Host
	if !ValidInterface(h.Bridge) {
		return out, fault.New(fault.Invalid, "bridge name %q is not an interface name", h.Bridge)
	}
	subnet, err := netip.ParsePrefix(h.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet != subnet.Masked() || subnet.Bits() < 8 || subnet.Bits() > 30 {
		return out, fault.New(fault.Invalid, "agent subnet %q is not an IPv4 prefix of 8 to 30 bits without host bits", h.Subnet)
	}
	address, err := netip.ParseAddr(h.Address)
	if err != nil || !usable(subnet, address) {
		return out, fault.New(fault.Invalid, "host address %q is not a host address in %s", h.Address, subnet)
	}
	ports := slices.Clone(h.GuestTCPPorts)
	slices.Sort(ports)
	ports = slices.Compact(ports)
	if slices.Contains(ports, 0) {
		return out, fault.New(fault.Invalid, "guest port 0 is not a port")
	}
	return Host{Bridge: h.Bridge, Subnet: subnet, Address: address, Ports: ports}, nil
}

// Parse checks one request against the host and returns its canonical form.
// own lists the host's addresses on every interface.
func Parse(req network.AttachRequest, host Host, own []netip.Addr) (Policy, error) {
	p := Policy{
		SandboxID: req.SandboxID, Generation: req.Generation,
		Interface: req.Interface, MakeTap: req.CreateInterface, Mode: req.Mode,
	}
	if err := p.parseIdentity(req, host); err != nil {
		return Policy{}, err
	}
	switch req.Mode {
	case network.ModeNAT, network.ModeAllowlist:
	case network.ModeOff:
		if len(req.Allow) > 0 {
			return Policy{}, fault.New(fault.Invalid, "mode off takes no allow entries").
				WithHint("use mode allowlist to open single destinations")
		}
	default:
		return Policy{}, fault.New(fault.Invalid, "network mode %q is not off, nat or allowlist", req.Mode)
	}
	if len(req.Allow) > MaxAllow {
		return Policy{}, fault.New(fault.Invalid, "%d allow entries are more than %d", len(req.Allow), MaxAllow)
	}
	for _, a := range req.Allow {
		parsed, err := ParseAllow(a, host, own)
		if err != nil {
			return Policy{}, err
		}
		if !slices.Contains(p.Allow, parsed) {
			p.Allow = append(p.Allow, parsed)
		}
	}
	return p, nil
}

func (p *Policy) parseIdentity(req network.AttachRequest, host Host) error {
	if !sandboxID.MatchString(req.SandboxID) {
		return fault.New(fault.Invalid, "sandbox id %q is not 1 to 40 letters, digits, dots, dashes or underscores", req.SandboxID)
	}
	if req.Bridge != host.Bridge {
		return fault.New(fault.Invalid, "bridge %q is not the agent bridge %s", req.Bridge, host.Bridge)
	}
	if !ValidInterface(req.Interface) || req.Interface == host.Bridge {
		return fault.New(fault.Invalid, "%q cannot name a sandbox's interface", req.Interface)
	}
	mac, err := net.ParseMAC(req.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)) {
		return fault.New(fault.Invalid, "MAC %q is not a unicast Ethernet address", req.MAC)
	}
	p.MAC = mac.String()
	address, err := netip.ParseAddr(req.Address)
	if err != nil || !usable(host.Subnet, address) || address == host.Address {
		return fault.New(fault.Invalid, "address %q is not a sandbox address in %s", req.Address, host.Subnet)
	}
	p.Address = address
	return nil
}

// usable reports whether a is an IPv4 host address in subnet: neither the
// network's own nor its broadcast address.
func usable(subnet netip.Prefix, a netip.Addr) bool {
	return a.Is4() && subnet.Contains(a) && a != subnet.Addr() && subnet.Contains(a.Next())
}

// Request gives the contract's form.
func (p Policy) Request(bridge string) network.AttachRequest {
	req := network.AttachRequest{
		SandboxID: p.SandboxID, Generation: p.Generation, Bridge: bridge,
		Interface: p.Interface, CreateInterface: p.MakeTap,
		MAC: p.MAC, Address: p.Address.String(), Mode: p.Mode,
	}
	for _, a := range p.Allow {
		if a.Lost() {
			continue
		}
		req.Allow = append(req.Allow, network.Allow{
			CIDR: a.Prefix.String(), Protocol: a.Protocol, FirstPort: a.First, LastPort: a.Last,
		})
	}
	return req
}
