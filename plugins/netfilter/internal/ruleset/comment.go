package ruleset

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/sdk/network"
)

// Comments carry what the rules themselves do not say. nft holds 128 bytes of
// one; the longest here has 126, which is why a MAC stands without colons.

func hostComment(h policy.Host) string {
	return fmt.Sprintf("host %s %s %s", h.Bridge, h.Subnet, h.Address)
}

func policyComment(p policy.Policy) string {
	origin := "given"
	if p.MakeTap {
		origin = "made"
	}
	return fmt.Sprintf("%s %d %s %s %s %s %s %d", p.SandboxID, p.Generation, p.Interface,
		strings.ReplaceAll(p.MAC, ":", ""), p.Address, origin, p.Mode, len(p.Allow))
}

func allowComment(i, n int) string { return fmt.Sprintf("allow %d of %d", i+1, n) }

func parsePolicyComment(text string) (policy.Policy, bool) {
	f := strings.Fields(text)
	if len(f) != 8 {
		return policy.Policy{}, false
	}
	generation, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return policy.Policy{}, false
	}
	address, err := netip.ParseAddr(f[4])
	if err != nil {
		return policy.Policy{}, false
	}
	mac, err := hex.DecodeString(f[3])
	if err != nil || len(mac) != 6 {
		return policy.Policy{}, false
	}
	allowed, err := strconv.Atoi(f[7])
	if err != nil || allowed < 0 || allowed > policy.MaxAllow {
		return policy.Policy{}, false
	}
	return policy.Policy{
		SandboxID: f[0], Generation: generation, Interface: f[2], MAC: net.HardwareAddr(mac).String(),
		Address: address, MakeTap: f[5] == "made", Mode: network.Mode(f[6]), Allow: make([]policy.Allow, allowed),
	}, true
}

// ReadHost finds the host that the tables were built for.
func ReadHost(tables []Table) (policy.Host, bool) {
	table, ok := find(tables, "inet")
	if !ok {
		return policy.Host{}, false
	}
	input, _ := table.chain("input")
	for _, r := range input.Rules {
		f := strings.Fields(r.Comment)
		if len(f) != 4 || f[0] != "host" {
			continue
		}
		subnet, err := netip.ParsePrefix(f[2])
		if err != nil {
			continue
		}
		address, err := netip.ParseAddr(f[3])
		if err != nil {
			continue
		}
		h := policy.Host{Bridge: f[1], Subnet: subnet, Address: address}
		ports, _ := table.set("guest_tcp_ports")
		for _, e := range ports.Elements {
			if n, err := strconv.ParseUint(e.key(), 10, 16); err == nil {
				h.Ports = append(h.Ports, uint16(n))
			}
		}
		return h, true
	}
	return policy.Host{}, false
}

// ReadPolicies finds the attachments in the tables. What each opens comes from
// its rules, not from its comment.
func ReadPolicies(tables []Table) []policy.Policy {
	table, ok := find(tables, "inet")
	if !ok {
		return nil
	}
	var out []policy.Policy
	for _, c := range table.Chains {
		id, ok := strings.CutPrefix(c.Name, sandboxPrefix)
		if !ok || len(c.Rules) == 0 {
			continue
		}
		p, ok := parsePolicyComment(c.Rules[len(c.Rules)-1].Comment)
		if !ok || p.SandboxID != id {
			continue
		}
		readAllow(p.Allow, c.Rules)
		out = append(out, p)
	}
	return out
}

// readAllow fills in what stands under the number that we gave it. A rule
// without one is somebody's and no part of the policy; an entry whose rule is
// gone or there twice stays lost.
func readAllow(allow []policy.Allow, rules []Rule) {
	texts := make(map[string]string, len(rules))
	for _, r := range rules {
		if _, twice := texts[r.Comment]; twice {
			r.Text = ""
		}
		texts[r.Comment] = r.Text
	}
	for i := range allow {
		if a, ok := parseAllow(texts[allowComment(i, len(allow))]); ok {
			allow[i] = a
		}
	}
}

// parseAllow is the inverse of allowText.
func parseAllow(text string) (policy.Allow, bool) {
	rest, ok := strings.CutPrefix(text, "ip daddr ")
	if !ok {
		return policy.Allow{}, false
	}
	rest, ok = strings.CutSuffix(rest, " accept")
	if !ok {
		return policy.Allow{}, false
	}
	where, how, _ := strings.Cut(rest, " ")
	a, ok := parseHow(how)
	if !ok {
		return policy.Allow{}, false
	}
	if addr, err := netip.ParseAddr(where); err == nil {
		a.Prefix = netip.PrefixFrom(addr, addr.BitLen())
		return a, true
	}
	prefix, err := netip.ParsePrefix(where)
	a.Prefix = prefix
	return a, err == nil
}

func parseHow(how string) (policy.Allow, bool) {
	var a policy.Allow
	if how == "" {
		return a, true
	}
	ports := ""
	if protocol, ok := strings.CutPrefix(how, "meta l4proto { 6, 17 } th dport "); ok {
		ports = protocol
	} else if number, ok := strings.CutPrefix(how, "meta l4proto "); ok {
		for name, n := range protocolNumbers {
			if n == number {
				a.Protocol = name
			}
		}
		return a, a.Protocol != ""
	} else {
		var found bool
		if a.Protocol, ports, found = strings.Cut(how, " dport "); !found {
			return a, false
		}
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	f, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return a, false
	}
	l, err := strconv.ParseUint(last, 10, 16)
	a.First, a.Last = uint16(f), uint16(l)
	return a, err == nil
}
