package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/netlab"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/nft"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/ruleset"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

var (
	tool = nft.Tool{Path: "nft"}
	host = policy.Host{
		Bridge: "vmbr1", Subnet: netip.MustParsePrefix("10.77.0.0/16"),
		Address: netip.MustParseAddr("10.77.0.1"), Ports: []uint16{53, 8844},
	}
	// The order of elements in a set is the kernel's.
	unordered = cmpopts.SortSlices(func(a, b ruleset.Element) bool {
		return strings.Join(a.Key, " ") < strings.Join(b.Key, " ")
	})
	// Chains come in the kernel's order too.
	unorderedChains = cmpopts.SortSlices(func(a, b ruleset.Chain) bool { return a.Name < b.Name })
)

func policies() []policy.Policy {
	prefix := netip.MustParsePrefix
	return []policy.Policy{
		{
			SandboxID: "sbx_off", Generation: 1, Interface: "tap1000i0", MakeTap: true,
			MAC: "52:54:00:00:10:00", Address: netip.MustParseAddr("10.77.3.232"), Mode: network.ModeOff,
		},
		{
			// The longest identity that a comment has to hold.
			SandboxID: strings.Repeat("s", 40), Generation: 1<<64 - 1, Interface: "tap1001i0.abcde",
			MAC: "52:54:00:00:10:01", Address: netip.MustParseAddr("100.177.133.233"), Mode: network.ModeAllowlist,
			Allow: []policy.Allow{
				{Prefix: prefix("10.1.2.3/32"), Protocol: "tcp", First: 80, Last: 90},
				{Prefix: prefix("10.1.2.0/24"), Protocol: "udp", First: 53, Last: 53},
				{Prefix: prefix("10.1.3.0/24"), First: 443, Last: 443},
				{Prefix: prefix("10.1.4.0/24"), First: 1, Last: 65535},
				{Prefix: prefix("198.51.100.0/24"), Protocol: "tcp"},
				{Prefix: prefix("198.51.100.0/25"), Protocol: "icmp"},
				{Prefix: prefix("203.0.113.7/32")},
			},
		},
		{
			SandboxID: "sbx-nat.2", Generation: 7, Interface: "tap1002i0", MakeTap: true,
			MAC: "52:54:00:00:10:02", Address: netip.MustParseAddr("10.77.3.234"), Mode: network.ModeNAT,
		},
	}
}

// What is applied reads back as exactly what was built, in every variant, so
// that a difference is always somebody's change.
func TestRoundTrip(t *testing.T) {
	for _, ways := range []ruleset.Ways{{}, {WAN: "wan0"}, {Tailnet: "tailscale0"}, {WAN: "wan0", Tailnet: "tailscale0"}, {MaxConnections: 4096}} {
		netlab.Run(t, func() {
			ctx := context.Background()
			want := ruleset.Build(host, ways, policies())
			if err := tool.Apply(ctx, ruleset.Replace(nil, want)); err != nil {
				t.Errorf("apply: %v\n%s", err, ruleset.Text(want))
				return
			}
			got, err := tool.Read(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if diff := cmp.Diff(want, got, unordered, unorderedChains, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("ways %+v: (-built +read)\n%s", ways, diff)
			}
			if script := ruleset.Transaction(got, want); script != "" {
				t.Errorf("ways %+v: a change is left to do:\n%s", ways, script)
			}
			if found := ruleset.Differences(got, want, policies()); len(found) > 0 {
				t.Errorf("ways %+v: %v", ways, found)
			}
			gotHost, _ := ruleset.ReadHost(got)
			if diff := cmp.Diff(host, gotHost, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("host (-want +read)\n%s", diff)
			}
			if diff := cmp.Diff(policies(), ruleset.ReadPolicies(got), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
				cmpopts.SortSlices(func(a, b policy.Policy) bool { return a.SandboxID < b.SandboxID }), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("policies (-want +read)\n%s", diff)
			}
		})
	}
}

// Every step between two sets of policies, in both directions, is one
// transaction that ends at the same tables as building them anew.
func TestTransaction(t *testing.T) {
	all := policies()
	changed := all[1]
	changed.Generation, changed.Allow, changed.Mode = 1, nil, network.ModeNAT
	moved := all[0]
	moved.Address, moved.MAC = netip.MustParseAddr("10.77.9.9"), "52:54:00:00:99:99"
	wider := host
	wider.Ports = []uint16{8844, 9000}
	steps := []struct {
		name     string
		host     policy.Host
		policies []policy.Policy
	}{
		{"first", host, nil},
		{"one", host, all[:1]},
		{"three", host, all},
		{"changed", host, []policy.Policy{all[0], changed, all[2]}},
		{"moved", host, []policy.Policy{moved, changed, all[2]}},
		{"ports", wider, []policy.Policy{moved, changed, all[2]}},
		{"two", host, all[1:]},
		{"none", host, nil},
	}
	netlab.Run(t, func() {
		ctx := context.Background()
		for _, s := range steps {
			current, err := tool.Read(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			want := ruleset.Build(s.host, ruleset.Ways{Tailnet: "tailscale0", MaxConnections: 100}, s.policies)
			script := ruleset.Transaction(current, want)
			if err := tool.Apply(ctx, script); err != nil {
				t.Errorf("%s: %v\n%s", s.name, err, script)
				return
			}
			if replaced := strings.Contains(script, "delete table"); replaced != (s.name == "first") {
				t.Errorf("%s: replaced tables: %v", s.name, replaced)
			}
			got, err := tool.Read(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if found := ruleset.Differences(got, want, s.policies); len(found) > 0 {
				t.Errorf("%s: %v", s.name, found)
			}
		}
	})
}

// A transaction with one bad line changes nothing, and says why.
func TestApplyIsAtomic(t *testing.T) {
	netlab.Run(t, func() {
		ctx := context.Background()
		want := ruleset.Build(host, ruleset.Ways{}, policies())
		if err := tool.Apply(ctx, ruleset.Replace(nil, want)); err != nil {
			t.Error(err)
			return
		}
		err := tool.Apply(ctx, "flush chain inet agentlab forward\nadd rule inet agentlab nowhere drop\n")
		if fault.ClassOf(err) != fault.Conflict || fault.HintOf(err) == "" {
			t.Errorf("error %v of class %s with hint %q", err, fault.ClassOf(err), fault.HintOf(err))
		}
		const said = "nft refused the request: Could not process rule: No such file or directory: add rule inet agentlab nowhere drop"
		if err == nil || err.Error() != said {
			t.Errorf("error %q, want %q", err, said)
		}
		got, err := tool.Read(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		if found := ruleset.Differences(got, want, policies()); len(found) > 0 {
			t.Errorf("the failed transaction changed %v", found)
		}
	})
}

func TestMissingProgram(t *testing.T) {
	_, err := nft.Tool{Path: "/nonexistent/nft"}.Read(context.Background())
	if fault.ClassOf(err) != fault.Precondition || fault.HintOf(err) == "" {
		t.Errorf("error %v of class %s, hint %q", err, fault.ClassOf(err), fault.HintOf(err))
	}
}

func TestDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	if _, err := tool.Read(ctx); fault.ClassOf(err) != fault.Timeout {
		t.Errorf("error %v of class %s", err, fault.ClassOf(err))
	}
}

// nft has its whole script from the beginning, however long it is: were this
// process killed, a pipe would end with what had been written until then.
func TestScriptIsFinished(t *testing.T) {
	dir := t.TempDir()
	path, seen := filepath.Join(dir, "nft"), filepath.Join(dir, "seen")
	program := "#!/bin/sh\nstat -L -c '%F %s' /dev/stdin >" + seen + "\nwc -c >>" + seen + "\n"
	if err := os.WriteFile(path, []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	const size = 200_000
	if err := (nft.Tool{Path: path}).Apply(t.Context(), strings.Repeat("#", size)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(seen)
	if want := fmt.Sprintf("regular file %d\n%d\n", size, size); err != nil || string(got) != want {
		t.Errorf("nft sees %q, want %q: %v", got, want, err)
	}
}
