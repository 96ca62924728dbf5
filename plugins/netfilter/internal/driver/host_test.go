package driver_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

func levels(findings []plugin.Finding) map[string]plugin.Level {
	out := map[string]plugin.Level{}
	for _, f := range findings {
		out[f.ID] = f.Level
	}
	return out
}

// The host set-up is made, is found to be right, and a second time has nothing
// left to do. Checking changes nothing.
func TestHost(t *testing.T) {
	inWorld(t, driver.Config{WANInterface: "wan0"}, func(w *world) {
		empty := w.kernelOfHost()
		findings, err := w.driver.CheckHost(t.Context(), hostWish)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"bridge", "rules", "ip_forward"} {
			if levels(findings)[id] != plugin.LevelMissing {
				t.Errorf("finding %s on a bare host: %+v", id, findings)
			}
		}
		for _, f := range findings {
			if f.Level != plugin.LevelOK && f.Fix == "" {
				t.Errorf("finding %s has no fix: %s", f.ID, f.Message)
			}
		}
		if diff := cmp.Diff(empty, w.kernelOfHost()); diff != "" {
			t.Errorf("the check changed something (-before +after)\n%s", diff)
		}
		report, err := w.driver.ApplyHost(t.Context(), hostWish)
		if err != nil || len(report.Changes) == 0 {
			t.Fatalf("apply: %+v, %v", report, err)
		}
		for id, level := range levels(report.Findings) {
			if level == plugin.LevelMissing {
				t.Errorf("%s is still missing: %+v", id, report.Findings)
			}
		}
		done := w.kernelOfHost()
		report, err = w.driver.ApplyHost(t.Context(), hostWish)
		if err != nil || len(report.Changes) != 0 {
			t.Errorf("apply again: %+v, %v", report, err)
		}
		if diff := cmp.Diff(done, w.kernelOfHost()); diff != "" {
			t.Errorf("a second apply changed something (-before +after)\n%s", diff)
		}
		for _, want := range []string{"10.77.0.1/16", "UP"} {
			if text := output(t, "ip -brief address show dev vmbr1") + output(t, "ip link show vmbr1"); !strings.Contains(text, want) {
				t.Errorf("%s is not in %s", want, text)
			}
		}
	})
}

func (w *world) kernelOfHost() []string {
	return append(w.kernelLinks(), output(w.t, "nft -s list ruleset"), output(w.t, "sysctl net.ipv4.ip_forward"))
}

func (w *world) kernelLinks() []string {
	return []string{stable(output(w.t, "ip -details link show")), output(w.t, "ip -brief address show")}
}

// volatile is what changes in a listing of links without anybody's doing.
var volatile = regexp.MustCompile(`\b\w+_timer +[0-9.]+|NO-CARRIER,|\b(UNKNOWN|DOWN|UP)\b +`)

func stable(links string) string { return volatile.ReplaceAllString(links, "") }

// Own tables only: what others have in nft stays.
func TestForeignRulesStay(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		if err := run("nft add table inet other", "nft add chain inet other input { type filter hook input priority 0; }",
			"nft add rule inet other input tcp dport 22 accept"); err != nil {
			t.Fatal(err)
		}
		before := output(t, "nft list table inet other")
		w.applyHost()
		w.attach(tapRequest())
		if err := w.driver.Detach(t.Context(), "sbx_tap"); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, output(t, "nft list table inet other")); diff != "" {
			t.Errorf("somebody's table (-before +after)\n%s", diff)
		}
	})
}

// A bridge that somebody else made is used when it fits and never changed.
func TestForeignBridge(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		if err := run("ip link add vmbr1 type bridge ageing_time 12345", "ip link set vmbr1 up"); err != nil {
			t.Fatal(err)
		}
		before := w.kernelLinks()
		_, err := w.driver.ApplyHost(t.Context(), hostWish)
		if fault.ClassOf(err) != fault.Precondition || !strings.Contains(fault.HintOf(err), "10.77.0.1/16") {
			t.Errorf("a bridge without address: %v", err)
		}
		if diff := cmp.Diff(before, w.kernelLinks()); diff != "" {
			t.Errorf("somebody's bridge was changed (-before +after)\n%s", diff)
		}
		if err := run("ip address add 10.77.0.1/16 dev vmbr1"); err != nil {
			t.Fatal(err)
		}
		w.applyHost()
		g := w.newGuest(16, network.ModeOff)
		w.attach(g.req)
		w.expect("on somebody's bridge", probe{from: g.ns, target: "tcp " + gateway + ":8844", want: true})
		w.expect("on somebody's bridge", probe{from: g.ns, target: "tcp " + gateway + ":22"})
		findings, err := w.driver.CheckHost(t.Context(), hostWish)
		if err != nil || levels(findings)["bridge"] != plugin.LevelWarning {
			t.Errorf("sysctls of somebody's bridge are not reported: %+v, %v", findings, err)
		}
	})
}

// An interrupted making of the bridge is finished.
func TestBlankBridge(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		if err := run("ip link add vmbr1 type bridge"); err != nil {
			t.Fatal(err)
		}
		w.applyHost()
	})
}

func TestHostRefuses(t *testing.T) {
	inWorld(t, driver.Config{WANInterface: "wan0"}, func(w *world) {
		tests := []struct {
			name   string
			change func(*network.Host)
			class  fault.Class
		}{
			{"a bridge that is the way out", func(h *network.Host) { h.Bridge = "wan0" }, fault.Invalid},
			{"a link that is no bridge", func(h *network.Host) { h.Bridge = "tailscale0" }, fault.Exists},
			{"a name with a quote", func(h *network.Host) { h.Bridge = `v" drop` }, fault.Invalid},
			{"a wildcard", func(h *network.Host) { h.Bridge = "vmbr*" }, fault.Invalid},
			{"an address elsewhere", func(h *network.Host) { h.Address = "10.78.0.1" }, fault.Invalid},
			{"the network's own address", func(h *network.Host) { h.Address = "10.77.0.0" }, fault.Invalid},
			{"host bits", func(h *network.Host) { h.Subnet = "10.77.0.1/16" }, fault.Invalid},
			{"IPv6", func(h *network.Host) { h.Subnet, h.Address = "fd00::/64", "fd00::1" }, fault.Invalid},
		}
		for _, test := range tests {
			wish := hostWish
			test.change(&wish)
			if _, err := w.driver.ApplyHost(t.Context(), wish); fault.ClassOf(err) != test.class {
				t.Errorf("%s: %v is %s, want %s", test.name, err, fault.ClassOf(err), test.class)
			}
		}
		w.applyHost()
		w.attach(tapRequest())
		moved := hostWish
		moved.Subnet, moved.Address = "10.88.0.0/16", "10.88.0.1"
		if _, err := w.driver.ApplyHost(t.Context(), moved); fault.ClassOf(err) != fault.Precondition {
			t.Errorf("another subnet under attached sandboxes: %v", err)
		}
	})
}

// A kernel that cannot tell bridges apart must not shut somebody's bridge.
func TestSecondBridge(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		if err := run("ip link add docker0 type bridge"); err != nil {
			t.Fatal(err)
		}
		_, err := w.driver.ApplyHost(t.Context(), hostWish)
		findings, checkErr := w.driver.CheckHost(t.Context(), hostWish)
		if checkErr != nil {
			t.Fatal(checkErr)
		}
		i := slices.IndexFunc(findings, func(f plugin.Finding) bool { return f.ID == "bridge_match" })
		if findings[i].Level == plugin.LevelOK {
			if err != nil {
				t.Errorf("this kernel tells bridges apart, and still: %v", err)
			}
			return
		}
		if fault.ClassOf(err) != fault.Unsupported || findings[i].Level != plugin.LevelMissing {
			t.Errorf("a second bridge: %v, %+v", err, findings[i])
		}
	})
}

// What happened to links and rules is put right by applying the host again.
func TestApplyRepairs(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		w.attach(tapRequest())
		before := w.kernel()
		if err := run("ip link set tap1042i0 nomaster", "nft delete table bridge agentlab",
			"ip link set vmbr1 down", "sysctl -q -w net.ipv4.ip_forward=0"); err != nil {
			t.Fatal(err)
		}
		w.applyHost()
		if a := w.list(""); len(a) != 1 || a[0].Drifted {
			t.Errorf("drift stays: %+v", a)
		}
		if diff := cmp.Diff(before, w.kernel()); diff != "" {
			t.Errorf("after repair (-before +after)\n%s", diff)
		}
	})
}

// Health tells when the rules of a host that was set up are not right.
func TestHealth(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		check := func(when string, well bool) {
			problem, err := w.driver.Health(t.Context())
			if err != nil || (problem == "") != well {
				t.Errorf("%s: %q, %v", when, problem, err)
			}
		}
		check("before the set-up", true)
		w.applyHost()
		w.attach(tapRequest())
		check("attached", true)
		if err := run("nft flush chain inet agentlab to_host"); err != nil {
			t.Fatal(err)
		}
		check("with a chain flushed", false)
		if err := run("nft flush ruleset"); err != nil {
			t.Fatal(err)
		}
		check("with everything flushed", false)
	})
}
