package ruleset_test

import (
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/ruleset"
	"github.com/agentlab/agentlab/sdk/network"
)

var update = flag.Bool("update", false, "write the golden file")

func host() policy.Host {
	return policy.Host{
		Bridge: "vmbr1", Subnet: netip.MustParsePrefix("10.77.0.0/16"),
		Address: netip.MustParseAddr("10.77.0.1"), Ports: []uint16{8844},
	}
}

func policies() []policy.Policy {
	return []policy.Policy{
		{
			SandboxID: "sbx_off", Generation: 1, Interface: "tap1000i0", MakeTap: true,
			MAC: "52:54:00:00:10:00", Address: netip.MustParseAddr("10.77.3.232"), Mode: network.ModeOff,
		},
		{
			SandboxID: "sbx_allowlist", Generation: 2, Interface: "tap1001i0",
			MAC: "52:54:00:00:10:01", Address: netip.MustParseAddr("10.77.3.233"), Mode: network.ModeAllowlist,
			Allow: []policy.Allow{
				{Prefix: netip.MustParsePrefix("10.1.2.3/32"), Protocol: "tcp", First: 443, Last: 443},
				{Prefix: netip.MustParsePrefix("10.1.3.0/24"), First: 8000, Last: 8100},
				{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Protocol: "icmp"},
				{Prefix: netip.MustParsePrefix("203.0.113.0/24")},
			},
		},
		{
			SandboxID: "sbx_nat", Generation: 3, Interface: "tap1002i0", MakeTap: true,
			MAC: "52:54:00:00:10:02", Address: netip.MustParseAddr("10.77.3.234"), Mode: network.ModeNAT,
		},
	}
}

// The whole ruleset, to be read by people when it changes. Write it anew with
// go test ./plugins/netfilter/internal/ruleset -update.
func TestGolden(t *testing.T) {
	const file = "testdata/ruleset.nft"
	ways := ruleset.Ways{WAN: "vmbr0", Tailnet: "tailscale0", NamesBridge: true, MaxConnections: 4096}
	got := ruleset.Text(ruleset.Build(host(), ways, policies()))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-golden +built)\n%s", diff)
	}
}

// Each kind of damage is found and blamed on the sandbox that it concerns.
func TestDifferences(t *testing.T) {
	tests := []struct {
		name    string
		damage  func(bridge, inet *ruleset.Table)
		sandbox string
	}{
		{"a rule of one sandbox", func(_, inet *ruleset.Table) {
			c := chain(inet, "sandbox_sbx_nat")
			c.Rules = c.Rules[1:]
		}, "sbx_nat"},
		{"a rule of all", func(_, inet *ruleset.Table) { chain(inet, "to_host").Rules[5].Text = "accept" }, ""},
		{"the host's address opened to strangers", func(_, inet *ruleset.Table) {
			c := chain(inet, "input")
			c.Rules = c.Rules[:1]
		}, ""},
		{"a limit", func(_, inet *ruleset.Table) {
			chain(inet, "limit_sbx_nat").Rules[0].Text = "ct count over 9999 goto deny"
		}, "sbx_nat"},
		{"a way past a limit", func(_, inet *ruleset.Table) {
			inet.Sets[5].Elements = inet.Sets[5].Elements[1:]
		}, "sbx_off"},
		{"a comment", func(_, inet *ruleset.Table) { chain(inet, "input").Rules[0].Comment = "" }, ""},
		{"a binding", func(bridge, _ *ruleset.Table) { bridge.Sets[0].Elements = bridge.Sets[0].Elements[1:] }, "sbx_off"},
		{"a stray binding", func(bridge, _ *ruleset.Table) {
			bridge.Sets[0].Elements = append(bridge.Sets[0].Elements, ruleset.Element{Key: []string{"eth9", "52:54:00:00:00:01", "10.77.0.2"}})
		}, ""},
		{"a verdict", func(_, inet *ruleset.Table) { inet.Sets[4].Elements[2].Verdict = "accept" }, "sbx_nat"},
		{"a hook's priority", func(bridge, _ *ruleset.Table) { chain(bridge, "forward").Hook.Priority = 0 }, ""},
		{"a foreign chain", func(_, inet *ruleset.Table) {
			inet.Chains = append(inet.Chains, ruleset.Chain{Name: "mine"})
		}, ""},
		{"a table", func(bridge, _ *ruleset.Table) { bridge.Name = "other" }, ""},
	}
	ways := ruleset.Ways{WAN: "vmbr0", Tailnet: "tailscale0", MaxConnections: 4096}
	wanted := ruleset.Build(host(), ways, policies())
	if found := ruleset.Differences(wanted, wanted, policies()); len(found) != 0 {
		t.Fatalf("differences from itself: %v", found)
	}
	for _, test := range tests {
		current := ruleset.Build(host(), ways, policies())
		test.damage(&current[0], &current[1])
		found := ruleset.Differences(current, wanted, policies())
		if len(found) == 0 || found[0].Sandbox != test.sandbox {
			t.Errorf("%s: %+v, want one of sandbox %q", test.name, found, test.sandbox)
		}
		if ruleset.Transaction(current, wanted) == "" {
			t.Errorf("%s: nothing would be repaired", test.name)
		}
	}
}

func chain(t *ruleset.Table, name string) *ruleset.Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// Counters survive a replacement of the tables.
func TestReplaceKeepsCounters(t *testing.T) {
	current := ruleset.Build(host(), ruleset.Ways{}, policies())
	current[1].Sets[3].Elements[1].Packets, current[1].Sets[3].Elements[1].Bytes = 5, 420
	if got := ruleset.Denied(current, policies()[1]); got != 5 {
		t.Errorf("%d packets denied, want 5", got)
	}
	script := ruleset.Replace(current, ruleset.Build(host(), ruleset.Ways{}, policies()))
	if want := "10.77.3.233 counter packets 5 bytes 420"; !strings.Contains(script, want) {
		t.Errorf("%q is not in\n%s", want, script)
	}
}
