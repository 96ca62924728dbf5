package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/sdk/network"
)

// Name is the name of both tables.
const Name = "agentlab"

// Before everything else that usually filters, so that what is dropped here
// never reaches another table, conntrack or br_netfilter.
const (
	early         = -350
	filter        = -10
	sourceNAT     = 100
	sandboxPrefix = "sandbox_"
	limitPrefix   = "limit_"
)

// Ways is how packets leave and enter, from the plugin's configuration.
type Ways struct {
	WAN     string // "": every interface but the bridge and Tailnet
	Tailnet string // "": none
	// NamesBridge is whether the kernel can match a bridge's name in the bridge
	// family. Where it cannot, every bridged frame of this network namespace is
	// treated as one of the agent bridge.
	NamesBridge bool
	// MaxConnections is how many connections of one sandbox the host tracks at a
	// time; 0: no limit. What is more is denied.
	MaxConnections int
}

// Build renders the tables that put all policies in force.
func Build(host policy.Host, ways Ways, policies []policy.Policy) []Table {
	return []Table{bridgeTable(host, ways, policies), inetTable(host, ways, policies)}
}

func rules(lines ...string) []Rule {
	out := make([]Rule, 0, len(lines))
	for _, l := range lines {
		if l != "" {
			out = append(out, Rule{Text: l})
		}
	}
	return out
}

func hook(kind, name string, priority int) *Hook {
	return &Hook{Type: kind, Name: name, Priority: priority, Policy: "accept"}
}

// bridgeTable binds a port to its MAC and address in both directions. A port
// without a binding reaches nothing and nothing reaches it.
func bridgeTable(host policy.Host, ways Ways, policies []policy.Policy) Table {
	bindings := Set{Name: "bindings", Types: []string{"ifname", "ether_addr", "ipv4_addr"}}
	addresses := Set{Name: "addresses", Types: []string{"ifname", "ipv4_addr"}}
	denied := Set{Name: "denied", Types: []string{"ifname"}, Counted: true}
	for _, p := range policies {
		bindings.add("", p.Interface, p.MAC, p.Address.String())
		addresses.add("", p.Interface, p.Address.String())
		denied.add("", p.Interface)
	}
	in, out := "", ""
	if ways.NamesBridge {
		in, out = fmt.Sprintf("meta ibrname %q ", host.Bridge), fmt.Sprintf("meta obrname %q ", host.Bridge)
	}
	forward := rules(in+"goto deny", out+"goto deny")
	if in == out {
		forward = forward[:1]
	}
	return Table{Family: "bridge", Name: Name, Sets: []Set{bindings, addresses, denied}, Chains: []Chain{
		{Name: "prerouting", Hook: hook("filter", "prerouting", early), Rules: rules(in + "goto from_port")},
		// Most frames to 01:80:c2:00:00:0X come here without passing prerouting.
		{Name: "input", Hook: hook("filter", "input", early), Rules: rules(in + "goto from_port")},
		{Name: "forward", Hook: hook("filter", "forward", early), Rules: forward},
		{Name: "postrouting", Hook: hook("filter", "postrouting", early), Rules: rules(out + "goto to_port")},
		{Name: "from_port", Rules: rules(
			"ether type arp goto from_port_arp",
			"ether type ip goto from_port_ip",
			"goto deny")},
		// Asking for anybody else's address would tell which ones this host has.
		{Name: "from_port_arp", Rules: rules(
			"arp daddr ip != "+host.Address.String()+" goto deny",
			"iifname . arp saddr ether . arp saddr ip != @bindings goto deny",
			"iifname . ether saddr . arp saddr ip @bindings accept",
			"goto deny")},
		{Name: "from_port_ip", Rules: rules(
			"ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 goto deny",
			"iifname . ether saddr . ip saddr @bindings accept",
			"goto deny")},
		{Name: "to_port", Rules: rules(
			"oifname . arp daddr ip @addresses accept",
			"oifname . ether daddr . ip daddr @bindings accept",
			"drop")},
		{Name: "deny", Rules: rules("iifname @denied drop", "drop")},
	}}
}

// inetTable holds each sandbox's policy. It may trust the source address: the
// bridge table has tied it to the port.
func inetTable(host policy.Host, ways Ways, policies []policy.Policy) Table {
	sets := inetSets(host, policies)
	limit := ""
	if ways.MaxConnections > 0 {
		limit = "ct state new ip saddr vmap @limits"
		sets = append(sets, limitSet(policies))
	}
	bridge := strconv.Quote(host.Bridge)
	fromTailnet := ""
	if ways.Tailnet != "" {
		fromTailnet = fmt.Sprintf("iifname %q ct state new accept", ways.Tailnet)
	}
	// The guest API knows sandboxes by their address, which holds on the bridge
	// only: whoever comes in elsewhere must not reach it.
	input := rules(
		"iifname "+bridge+" goto to_host",
		"iifname != \"lo\" ip daddr "+host.Address.String()+" goto from_elsewhere")
	input[0].Comment = hostComment(host)
	chains := []Chain{
		// Some frames to 01:80:c2:00:00:0X enter this host's stack past every
		// hook of the bridge, and a port that lost its bridge speaks to it too.
		// IP in such a frame means nothing good on any interface.
		{Name: "prerouting", Hook: hook("filter", "prerouting", early), Rules: rules(
			"ether daddr 01:80:c2:00:00:00-01:80:c2:00:00:0f drop",
			"iifname @ports drop")},
		{Name: "input", Hook: hook("filter", "input", filter), Rules: input},
		{Name: "forward", Hook: hook("filter", "forward", filter), Rules: rules(
			"iifname "+bridge+" goto from_sandbox", "oifname "+bridge+" goto to_sandbox")},
		{Name: "postrouting", Hook: hook("nat", "postrouting", sourceNAT), Rules: rules(
			"ip saddr " + host.Subnet.String() + " oifname != " + bridge + " masquerade")},
		{Name: "to_host", Rules: rules(
			"meta nfproto ipv6 goto deny",
			"ct direction reply ct state established accept",
			"ct direction reply ct state related meta l4proto 1 accept",
			limit,
			"ip daddr "+host.Address.String()+" tcp dport @guest_tcp_ports accept",
			"ip daddr "+host.Address.String()+" icmp type echo-request accept",
			"goto deny")},
		{Name: "from_elsewhere", Rules: rules(
			"ct direction reply ct state established accept",
			"ct direction reply ct state related meta l4proto 1 accept",
			"drop")},
		// Only replies take the short way. What the sandbox opened is judged by
		// its policy packet by packet, so a tightened policy needs no flush here.
		{Name: "from_sandbox", Rules: rules(
			"meta nfproto ipv6 goto deny",
			"oifname "+bridge+" goto deny",
			"ct direction reply ct state established accept",
			"ct direction reply ct state related meta l4proto 1 accept",
			limit,
			"ip saddr vmap @policies",
			"goto deny")},
		{Name: "to_sandbox", Rules: rules(
			"meta nfproto ipv6 drop",
			"ct state established accept",
			"ct state related meta l4proto 1 accept",
			fromTailnet,
			"drop")},
		{Name: "deny", Rules: rules("ip saddr @denied drop", "drop")},
	}
	for _, p := range policies {
		chains = append(chains, sandboxChain(ways, p))
		if limit != "" {
			chains = append(chains, limitChain(ways, p))
		}
	}
	return Table{Family: "inet", Name: Name, Sets: sets, Chains: chains}
}

func inetSets(host policy.Host, policies []policy.Policy) []Set {
	ports := Set{Name: "guest_tcp_ports", Types: []string{"inet_service"}}
	for _, p := range host.Ports {
		ports.add("", strconv.Itoa(int(p)))
	}
	reserved := Set{Name: "reserved", Types: []string{"ipv4_addr"}, Interval: true}
	for _, p := range policy.Reserved() {
		reserved.add("", prefixText(p))
	}
	interfaces := Set{Name: "ports", Types: []string{"ifname"}}
	denied := Set{Name: "denied", Types: []string{"ipv4_addr"}, Counted: true}
	verdicts := Set{Name: "policies", Types: []string{"ipv4_addr"}, Verdicts: true}
	for _, p := range policies {
		interfaces.add("", p.Interface)
		denied.add("", p.Address.String())
		verdicts.add("goto "+sandboxPrefix+p.SandboxID, p.Address.String())
	}
	return []Set{ports, reserved, interfaces, denied, verdicts}
}

func (s *Set) add(verdict string, key ...string) {
	s.Elements = append(s.Elements, Element{Key: key, Verdict: verdict})
}

func limitSet(policies []policy.Policy) Set {
	limits := Set{Name: "limits", Types: []string{"ipv4_addr"}, Verdicts: true}
	for _, p := range policies {
		limits.add("jump "+limitPrefix+p.SandboxID, p.Address.String())
	}
	return limits
}

// limitChain counts what passes through its one rule, so the sandbox's
// connections to the host and through it count together. A packet that is
// dropped leaves no entry in the host's table.
func limitChain(ways Ways, p policy.Policy) Chain {
	return Chain{Name: limitPrefix + p.SandboxID, Rules: rules(fmt.Sprintf("ct count over %d goto deny", ways.MaxConnections))}
}

func sandboxChain(ways Ways, p policy.Policy) Chain {
	c := Chain{Name: sandboxPrefix + p.SandboxID}
	for i, a := range p.Allow {
		if !a.Lost() {
			c.Rules = append(c.Rules, Rule{Text: allowText(a), Comment: allowComment(i, len(p.Allow))})
		}
	}
	if p.Mode == network.ModeNAT {
		c.Rules = append(c.Rules, Rule{Text: "ip daddr @reserved goto deny"})
		if ways.Tailnet != "" {
			c.Rules = append(c.Rules, Rule{Text: fmt.Sprintf("oifname %q goto deny", ways.Tailnet)})
		}
		accept := "accept"
		if ways.WAN != "" {
			accept = fmt.Sprintf("oifname %q accept", ways.WAN)
		}
		c.Rules = append(c.Rules, Rule{Text: accept})
	}
	c.Rules = append(c.Rules, Rule{Text: "goto deny", Comment: policyComment(p)})
	return c
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// protocolNumbers spells protocols without /etc/protocols, which a small host
// may lack.
var protocolNumbers = map[string]string{"icmp": "1", "tcp": "6", "udp": "17"}

func allowText(a policy.Allow) string {
	var b strings.Builder
	b.WriteString("ip daddr " + prefixText(a.Prefix))
	ports := strconv.Itoa(int(a.First))
	if a.Last != a.First {
		ports += "-" + strconv.Itoa(int(a.Last))
	}
	switch {
	case a.First == 0 && a.Protocol != "":
		b.WriteString(" meta l4proto " + protocolNumbers[a.Protocol])
	case a.First != 0 && a.Protocol != "":
		b.WriteString(" " + a.Protocol + " dport " + ports)
	case a.First != 0:
		b.WriteString(" meta l4proto { 6, 17 } th dport " + ports)
	}
	return b.String() + " accept"
}
