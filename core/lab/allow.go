package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// AllowRule opens one destination to a sandbox: an entry of
// Spec.NetworkAllow, parsed.
type AllowRule struct {
	Prefix    netip.Prefix // IPv4, no host bits
	Protocol  string       // tcp, udp, icmp; "" is any
	FirstPort uint16       // 0: all ports
	LastPort  uint16
}

// Ranges that no entry may touch, whatever its ports.
var refusedRanges = []struct {
	name   string
	prefix netip.Prefix
}{
	{"this network", netip.MustParsePrefix("0.0.0.0/8")},
	{"loopback", netip.MustParsePrefix("127.0.0.0/8")},
	{"link-local addresses", netip.MustParsePrefix("169.254.0.0/16")},
	{"a metadata address", netip.MustParsePrefix("168.63.129.16/32")},
	{"multicast", netip.MustParsePrefix("224.0.0.0/4")},
	{"broadcast", netip.MustParsePrefix("255.255.255.255/32")},
}

// Ranges that an entry may name only together with a port.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
}

// ParseAllow reads entries of the forms "192.0.2.0/24", "192.0.2.7",
// "192.0.2.7:443", "192.0.2.0/24:8000-8099", each with an optional "/tcp" or
// "/udp" behind the port and "/icmp" behind a range without one:
// "192.0.2.7:53/udp", "192.0.2.0/24/icmp". It refuses what must stay shut. The
// error joins one error per bad entry, each naming it.
func ParseAllow(entries []string) ([]AllowRule, error) {
	var rules []AllowRule
	var errs []error
	for _, entry := range entries {
		rule, err := parseAllow(entry)
		if err == nil {
			err = rule.check()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("network allow %q: %w", entry, err))
			continue
		}
		rules = append(rules, rule)
	}
	return rules, errors.Join(errs...)
}

// Reaches reports whether the rule opens an address of the given range.
func (r AllowRule) Reaches(p netip.Prefix) bool { return r.Prefix.Overlaps(p) }

func parseAllow(entry string) (AllowRule, error) {
	var r AllowRule
	if entry != strings.TrimSpace(entry) || entry == "" {
		return r, errors.New("empty, or with spaces around it")
	}
	rest := entry
	for _, protocol := range []string{"tcp", "udp", "icmp"} {
		if before, ok := strings.CutSuffix(rest, "/"+protocol); ok {
			rest, r.Protocol = before, protocol
			break
		}
	}
	where, ports, hasPorts := strings.Cut(rest, ":")
	if strings.Contains(ports, ":") {
		return r, errors.New("IPv6 never leaves a sandbox; only IPv4 can be allowed")
	}
	var err error
	if r.Prefix, err = parsePrefix(where); err != nil {
		return r, err
	}
	if hasPorts {
		if r.Protocol == "icmp" {
			return r, errors.New("icmp has no ports")
		}
		if r.FirstPort, r.LastPort, err = parsePorts(ports); err != nil {
			return r, err
		}
	}
	return r, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		s += "/32"
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return p, errors.New("not an IPv4 range like 192.0.2.0/24, with :port, :first-last, /tcp or /udp behind it if wanted")
	}
	if p != p.Masked() {
		return p, fmt.Errorf("bits are set behind the prefix; write %s", p.Masked())
	}
	return p, nil
}

func parsePorts(s string) (first, last uint16, err error) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	a, errA := strconv.ParseUint(low, 10, 16)
	b, errB := strconv.ParseUint(high, 10, 16)
	if errA != nil || errB != nil || a == 0 || b < a {
		return 0, 0, fmt.Errorf("%q is no port (1 to 65535) and no range of them", s)
	}
	return uint16(a), uint16(b), nil
}

func (r AllowRule) check() error {
	if r.Prefix.Bits() == 0 {
		return errors.New("everything cannot be allowed; use mode nat")
	}
	for _, refused := range refusedRanges {
		if r.Prefix.Overlaps(refused.prefix) {
			return fmt.Errorf("reaches %s (%s), which is never allowed", refused.name, refused.prefix)
		}
	}
	for _, private := range privateRanges {
		if r.Prefix.Overlaps(private) && r.FirstPort == 0 {
			return fmt.Errorf("reaches the private range %s; name the port too, as in %s:443", private, r.Prefix)
		}
	}
	return nil
}
