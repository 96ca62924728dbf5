package lab

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Allow is one destination that a sandbox may reach.
type Allow struct {
	Prefix    netip.Prefix
	Protocol  string // tcp, udp, icmp; "" is any
	FirstPort uint16 // 0: all ports
	LastPort  uint16
}

// ParseAllow reads an entry of a profile's allow list: an IPv4 address or CIDR,
// optionally a port or range of ports, optionally a protocol:
//
//	192.0.2.0/24
//	192.0.2.7:443
//	192.0.2.0/24:8000-8099/udp
//
// With ports and no protocol it is tcp.
func ParseAllow(entry string) (Allow, error) {
	var a Allow
	rest := entry
	for _, proto := range []string{"tcp", "udp", "icmp"} {
		if cut, ok := strings.CutSuffix(rest, "/"+proto); ok {
			a.Protocol, rest = proto, cut
		}
	}
	target, ports, hasPorts := strings.Cut(rest, ":")
	if !strings.Contains(target, "/") {
		target += "/32"
	}
	prefix, err := netip.ParsePrefix(target)
	switch {
	case err != nil || !prefix.Addr().Is4():
		return Allow{}, fmt.Errorf("%q is not an IPv4 address or CIDR, with an optional :port (names are not resolved)", entry)
	case prefix != prefix.Masked():
		return Allow{}, fmt.Errorf("%q has host bits set; did you mean %s?", entry, prefix.Masked())
	}
	a.Prefix = prefix
	if !hasPorts {
		return a, nil
	}
	if a.Protocol == "icmp" {
		return Allow{}, fmt.Errorf("%q: icmp has no ports", entry)
	}
	if a.Protocol == "" {
		a.Protocol = "tcp"
	}
	first, last, ranged := strings.Cut(ports, "-")
	if !ranged {
		last = first
	}
	lo, err1 := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || lo == 0 || hi < lo {
		return Allow{}, fmt.Errorf("%q: %q is not a port or a range of ports", entry, ports)
	}
	a.FirstPort, a.LastPort = uint16(lo), uint16(hi)
	return a, nil
}
