package policy

import (
	"net/netip"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

// never lists what no allow entry opens, with what it is.
func never() []struct {
	prefix netip.Prefix
	what   string
} {
	p := netip.MustParsePrefix
	return []struct {
		prefix netip.Prefix
		what   string
	}{
		{p("0.0.0.0/8"), "this host"},
		{p("127.0.0.0/8"), "loopback"},
		{p("169.254.0.0/16"), "link-local and metadata addresses"},
		{p("168.63.129.16/32"), "a metadata address"},
		{p("100.100.100.100/32"), "the tailnet's own resolver"},
		{p("100.100.100.200/32"), "a metadata address"},
		{p("192.0.0.192/32"), "a metadata address"},
		{p("224.0.0.0/3"), "multicast and broadcast"},
	}
}

// private ranges are open only to an allow entry that names ports.
func private() []netip.Prefix {
	p := netip.MustParsePrefix
	return []netip.Prefix{
		p("10.0.0.0/8"), p("100.64.0.0/10"), p("172.16.0.0/12"),
		p("192.0.0.0/24"), p("192.168.0.0/16"), p("198.18.0.0/15"),
	}
}

// Reserved is everything that mode nat does not reach by itself, ascending.
func Reserved() []netip.Prefix {
	p := netip.MustParsePrefix
	return []netip.Prefix{
		p("0.0.0.0/8"), p("10.0.0.0/8"), p("100.64.0.0/10"), p("127.0.0.0/8"),
		p("168.63.129.16/32"), p("169.254.0.0/16"), p("172.16.0.0/12"),
		p("192.0.0.0/24"), p("192.168.0.0/16"), p("198.18.0.0/15"), p("224.0.0.0/3"),
	}
}

// ParseAllow checks one allow entry and returns its canonical form. The error
// names the entry.
func ParseAllow(in network.Allow, host Host, own []netip.Addr) (Allow, error) {
	refuse := func(format string, args ...any) (Allow, error) {
		return Allow{}, fault.New(fault.Invalid, "allow entry %s: "+format, append([]any{in.CIDR}, args...)...)
	}
	prefix, err := netip.ParsePrefix(in.CIDR)
	if err != nil {
		addr, addrErr := netip.ParseAddr(in.CIDR)
		if addrErr != nil {
			return refuse("not an IPv4 address or prefix")
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if !prefix.Addr().Is4() {
		return refuse("sandboxes have no IPv6")
	}
	if prefix != prefix.Masked() {
		return refuse("has host bits set, write %s", prefix.Masked())
	}
	out := Allow{Prefix: prefix, Protocol: in.Protocol, First: in.FirstPort, Last: in.LastPort}
	switch in.Protocol {
	case "", "tcp", "udp":
	case "icmp":
		if in.FirstPort != 0 || in.LastPort != 0 {
			return refuse("icmp has no ports")
		}
	default:
		return refuse("protocol %q is not tcp, udp or icmp", in.Protocol)
	}
	if out.Last == 0 {
		out.Last = out.First
	}
	if out.First == 0 && out.Last != 0 || out.First > out.Last {
		return refuse("ports %d-%d are not a range", in.FirstPort, in.LastPort)
	}
	if err := out.checkDestination(host, own); err != nil {
		return Allow{}, err
	}
	return out, nil
}

func (a Allow) checkDestination(host Host, own []netip.Addr) error {
	refuse := func(what string) error {
		return fault.New(fault.Invalid, "allow entry %s: covers %s, which is never open", a.Prefix, what)
	}
	if a.Prefix.Bits() == 0 {
		return refuse("every address").(*fault.Error).WithHint("use mode nat for the whole Internet")
	}
	if a.Prefix.Overlaps(host.Subnet) {
		return refuse("the agent subnet " + host.Subnet.String())
	}
	for _, n := range never() {
		if a.Prefix.Overlaps(n.prefix) {
			return refuse(n.what)
		}
	}
	for _, addr := range own {
		if a.Prefix.Contains(addr) {
			return refuse("this host's own address " + addr.String())
		}
	}
	for _, p := range private() {
		if !a.Prefix.Overlaps(p) {
			continue
		}
		if a.Prefix.Bits() < p.Bits() {
			return refuse("the private range " + p.String())
		}
		if a.First == 0 {
			return fault.New(fault.Invalid, "allow entry %s: a private range needs a port", a.Prefix).
				WithHint("write %s:PORT or %s:FIRST-LAST", a.Prefix, a.Prefix)
		}
	}
	return nil
}

// Protocol numbers as the kernel counts them.
const (
	ICMP = 1
	TCP  = 6
	UDP  = 17
)

// Permits reports whether a flow that the sandbox opened may go on. It mirrors
// the rules for everything but the interface a packet leaves by.
func (p Policy) Permits(host Host, to netip.Addr, protocol uint8, port uint16) bool {
	if to == host.Address {
		return protocol == ICMP || protocol == TCP && containsPort(host.Ports, port)
	}
	for _, a := range p.Allow {
		if a.matches(to, protocol, port) {
			return true
		}
	}
	if p.Mode != network.ModeNAT {
		return false
	}
	for _, r := range Reserved() {
		if r.Contains(to) {
			return false
		}
	}
	return true
}

func (a Allow) matches(to netip.Addr, protocol uint8, port uint16) bool {
	if !a.Prefix.Contains(to) {
		return false
	}
	switch a.Protocol {
	case "tcp":
		if protocol != TCP {
			return false
		}
	case "udp":
		if protocol != UDP {
			return false
		}
	case "icmp":
		return protocol == ICMP
	}
	if a.First == 0 {
		return true
	}
	return (protocol == TCP || protocol == UDP) && a.First <= port && port <= a.Last
}

func containsPort(ports []uint16, port uint16) bool {
	for _, p := range ports {
		if p == port {
			return true
		}
	}
	return false
}
