package driver_test

import (
	"testing"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/sdk/network"
)

// matrix is what one sandbox must reach and must not, by mode.
func matrix(g, peer *guest, w *world, reach map[string]bool) []probe {
	targets := []string{
		"tcp " + gateway + ":8844", "ping " + gateway,
		"tcp " + gateway + ":22", "tcp " + gateway + ":8006", "tcp " + gateway + ":80",
		"tcp " + hostWAN + ":22", "tcp " + hostWAN + ":8844", "ping " + hostWAN, "tcp 100.64.0.1:8844",
		"tcp " + tailPeer + ":80", "tcp " + exitPeer + ":80",
		"tcp " + peer.req.Address + ":7000", "ping " + peer.req.Address,
	}
	for _, a := range outside {
		targets = append(targets, "tcp "+a+":80")
	}
	targets = append(targets, "tcp "+internet+":443", "tcp "+neighbour+":443", "ping "+internet)
	probes := make([]probe, 0, len(targets))
	for _, t := range targets {
		probes = append(probes, probe{from: g.ns, target: t, want: reach[t]})
	}
	return probes
}

func always() map[string]bool {
	return map[string]bool{"tcp " + gateway + ":8844": true, "ping " + gateway: true}
}

func with(base map[string]bool, targets ...string) map[string]bool {
	for _, t := range targets {
		base[t] = true
	}
	return base
}

type modeCase struct {
	name  string
	cfg   driver.Config
	mode  network.Mode
	allow []network.Allow
	reach map[string]bool
	setup string // run in the host before anything else
}

func modeCases() []modeCase {
	return []modeCase{
		{name: "off", mode: network.ModeOff, reach: always()},
		{
			name: "nat", mode: network.ModeNAT, cfg: driver.Config{TailnetInterface: "tailscale0"},
			reach: with(always(), "tcp "+internet+":80", "tcp "+internet+":443", "ping "+internet),
		},
		{
			name: "nat by another interface", mode: network.ModeNAT, cfg: driver.Config{WANInterface: "wan1"},
			reach: always(),
		},
		{
			name: "nat by the right interface", mode: network.ModeNAT, cfg: driver.Config{WANInterface: "wan0"},
			reach: with(always(), "tcp "+internet+":80", "tcp "+internet+":443", "ping "+internet),
		},
		{
			name: "nat with an exception", mode: network.ModeNAT, cfg: driver.Config{TailnetInterface: "tailscale0"},
			allow: []network.Allow{{CIDR: neighbour + "/32", Protocol: "tcp", FirstPort: 443}},
			reach: with(always(), "tcp "+internet+":80", "tcp "+internet+":443", "ping "+internet, "tcp "+neighbour+":443"),
		},
		{
			name: "allowlist", mode: network.ModeAllowlist, cfg: driver.Config{TailnetInterface: "tailscale0"},
			allow: []network.Allow{
				{CIDR: "198.51.100.0/24", Protocol: "tcp", FirstPort: 400, LastPort: 500},
				{CIDR: "172.16.3.0/24", FirstPort: 80},
			},
			reach: with(always(), "tcp "+internet+":443", "tcp 172.16.3.3:80"),
		},
		{
			// Elsewhere bridged frames do not pass the inet tables.
			name: "nat without br_netfilter", mode: network.ModeNAT, cfg: driver.Config{TailnetInterface: "tailscale0"},
			setup: "sysctl -q -e -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 net.bridge.bridge-nf-call-arptables=0",
			reach: with(always(), "tcp "+internet+":80", "tcp "+internet+":443", "ping "+internet),
		},
		{name: "allowlist of nothing", mode: network.ModeAllowlist, reach: always()},
	}
}

// The policy of each mode, packet by packet, against the same probes with
// everything open.
func TestModes(t *testing.T) {
	for _, test := range modeCases() {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, test.cfg, func(w *world) {
				if test.setup != "" {
					if err := run(test.setup); err != nil {
						t.Fatal(err)
					}
				}
				w.applyHost()
				g, peer := w.newGuest(16, test.mode, test.allow...), w.newGuest(17, network.ModeNAT)
				w.serve(peer)
				w.attach(g.req)
				w.attach(peer.req)
				probes := matrix(g, peer, w, test.reach)
				w.expect(test.name, probes...)
				w.openUp(g, peer)
				w.expectOpen(probes...)
			})
		})
	}
}

// From outside: the host and the tailnet reach a sandbox, nothing else does.
func TestInbound(t *testing.T) {
	inWorld(t, driver.Config{TailnetInterface: "tailscale0"}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeOff)
		w.serve(g)
		w.attach(g.req)
		target := "tcp " + g.req.Address + ":7000"
		probes := []probe{
			{from: w.host, target: target, want: true},
			{from: w.tail, target: target, want: true},
			{from: w.tail, target: "ping " + g.req.Address, want: true},
			{from: w.wan, target: target, want: false},
			{from: w.wan, target: "ping " + g.req.Address, want: false},
		}
		w.expect("attached", probes...)
		w.openUp(g)
		w.expectOpen(probes...)
	})
}

// The host's address in the agent network, where the guest API listens, answers
// the bridge and the host itself, whatever way a stranger knows to it. The
// host's own connections from that address still work.
func TestHostAddressFromElsewhere(t *testing.T) {
	inWorld(t, driver.Config{TailnetInterface: "tailscale0"}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeOff)
		w.attach(g.req)
		probes := []probe{
			{from: w.wan, target: "tcp " + gateway + ":8844"},
			{from: w.wan, target: "tcp " + gateway + ":22"},
			{from: w.wan, target: "ping " + gateway},
			{from: w.tail, target: "tcp " + gateway + ":8844"},
			{from: w.tail, target: "ping " + gateway},
			{from: w.wan, target: "tcp " + hostWAN + ":22", want: true},
			{from: w.host, target: "tcp " + gateway + ":8844", want: true},
			{from: g.ns, target: "tcp " + gateway + ":8844", want: true},
		}
		w.expect("attached", probes...)
		if err := run("ping -c 1 -W 4 -n -q -I " + gateway + " " + internet); err != nil {
			t.Errorf("from the host's address: %v", err)
		}
		w.openUp(g)
		w.expectOpen(probes...)
	})
}

// Without a tailnet interface its peers are strangers.
func TestInboundWithoutTailnet(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		w.serve(g)
		w.attach(g.req)
		probes := []probe{{from: w.tail, target: "tcp " + g.req.Address + ":7000", want: false}}
		w.expect("attached", probes...)
		w.openUp(g)
		w.expectOpen(probes...)
	})
}

// A port that is in the bridge but not attached is shut both ways, before
// Attach and after Detach.
func TestUnattached(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g, other, attached := w.newGuest(16, network.ModeNAT), w.newGuest(17, network.ModeNAT), w.newGuest(18, network.ModeNAT)
		w.serve(g)
		w.serve(attached)
		w.attach(attached.req)
		shut := []probe{
			{from: g.ns, target: "tcp " + gateway + ":8844"},
			{from: g.ns, target: "ping " + gateway},
			{from: g.ns, target: "tcp " + internet + ":80"},
			{from: w.host, target: "tcp " + g.req.Address + ":7000"},
			{from: other.ns, target: "tcp " + g.req.Address + ":7000"},
			{from: g.ns, target: "tcp " + attached.req.Address + ":7000"},
			{from: attached.ns, target: "tcp " + g.req.Address + ":7000"},
		}
		w.expect("before attach", shut...)
		w.attach(g.req)
		w.expect("attached", probe{from: g.ns, target: "tcp " + gateway + ":8844", want: true},
			probe{from: w.host, target: "tcp " + g.req.Address + ":7000", want: true})
		if err := w.driver.Detach(t.Context(), g.req.SandboxID); err != nil {
			t.Error(err)
		}
		w.expect("after detach", shut...)
		w.openUp(g, other, attached)
		w.expectOpen(shut...)
	})
}

// serve makes the guest answer on port 7000.
func (w *world) serve(g *guest) {
	w.t.Helper()
	if err := inGuest(g, func() error { return w.listen("0.0.0.0:7000") }); err != nil {
		w.t.Fatal(err)
	}
}
