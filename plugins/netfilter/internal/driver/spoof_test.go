package driver_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/netlab"
	"github.com/agentlab/agentlab/sdk/network"
)

const (
	broadcast = "ff:ff:ff:ff:ff:ff"
	foreign   = "52:54:00:aa:bb:cc"
)

type frame struct {
	name  string
	bytes []byte
	pass  bool
}

// forged lists frames from g, of which only the honest ones may reach the host.
func forged(g, victim *guest, hostMAC, magic string) []frame {
	me, addr, other := g.req.MAC, g.req.Address, victim.req.Address
	honest := echo(addr, gateway, magic)
	return []frame{
		{"an honest packet", ethernet(hostMAC, me, typeIPv4, honest), true},
		{"an honest ARP request", ethernet(broadcast, me, typeARP, arp(1, me, addr, gateway, magic)), true},
		{"an honest ARP reply", ethernet(hostMAC, me, typeARP, arp(2, me, addr, gateway, magic)), true},
		{"a foreign source MAC", ethernet(hostMAC, foreign, typeIPv4, honest), false},
		{"the victim's MAC", ethernet(hostMAC, victim.req.MAC, typeIPv4, honest), false},
		{"the victim's address", ethernet(hostMAC, me, typeIPv4, echo(other, gateway, magic)), false},
		{"the victim's MAC and address", ethernet(hostMAC, victim.req.MAC, typeIPv4, echo(other, gateway, magic)), false},
		{"a free address of the subnet", ethernet(hostMAC, me, typeIPv4, echo("10.77.200.200", gateway, magic)), false},
		{"an Internet address", ethernet(hostMAC, me, typeIPv4, echo(internet, gateway, magic)), false},
		{"no address", ethernet(hostMAC, me, typeIPv4, echo("0.0.0.0", gateway, magic)), false},
		{"an ARP claim of the victim's address", ethernet(broadcast, me, typeARP, arp(2, me, other, gateway, magic)), false},
		{"an ARP claim of the gateway's address", ethernet(broadcast, me, typeARP, arp(2, me, gateway, gateway, magic)), false},
		{"an ARP claim for the victim's MAC", ethernet(hostMAC, me, typeARP, arp(2, victim.req.MAC, addr, gateway, magic)), false},
		{"an ARP frame from a foreign MAC", ethernet(hostMAC, foreign, typeARP, arp(2, me, addr, gateway, magic)), false},
		{"an ARP question for the host's other address", ethernet(broadcast, me, typeARP, arp(1, me, addr, hostWAN, magic)), false},
		{"an ARP question for the victim", ethernet(broadcast, me, typeARP, arp(1, me, addr, other, magic)), false},
		{"IP in a broadcast frame", ethernet(broadcast, me, typeIPv4, honest), false},
		{"IP in a multicast frame", ethernet("01:00:5e:00:00:01", me, typeIPv4, honest), false},
		{"a VLAN tag", vlan(ethernet(hostMAC, me, typeIPv4, honest), 5), false},
		{"a priority tag", vlan(ethernet(hostMAC, me, typeIPv4, honest), 0), false},
		{"two VLAN tags", vlan(vlan(ethernet(hostMAC, me, typeIPv4, honest), 5), 6), false},
		{"IPv6", ethernet(hostMAC, me, typeIPv6, ipv6("fe80::1", "fe80::2", magic)), false},
		{"IPv6 to all nodes", ethernet("33:33:00:00:00:01", me, typeIPv6, ipv6("fe80::1", "ff02::1", magic)), false},
		{"another protocol", ethernet(hostMAC, me, 0x88b5, []byte(magic)), false},
	}
}

// What a sandbox forges never reaches the host's stack. The control: each of
// the frames does when nothing stops it.
func TestForgedFrames(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g, victim := w.newGuest(16, network.ModeNAT), w.newGuest(17, network.ModeNAT)
		w.attach(g.req)
		w.attach(victim.req)
		bridge, err := net.InterfaceByName("vmbr1")
		if err != nil {
			t.Fatal(err)
		}
		check := func(when string, open bool) {
			for i := range forged(g, victim, bridge.HardwareAddr.String(), "") {
				magic := fmt.Sprintf("magic-%v-%08d", open, i)
				f := forged(g, victim, bridge.HardwareAddr.String(), magic)[i]
				got, err := seen(w.host, "vmbr1", magic, func() error { return send(g.ns, "eth0", f.bytes) })
				if err != nil {
					t.Errorf("%s: %v", f.name, err)
				}
				if want := f.pass || open; got != want {
					t.Errorf("%s: %s: arrived %v, want %v", when, f.name, got, want)
				}
			}
		}
		check("attached", false)
		w.openUp(g, victim)
		check("with everything open", true)
	})
}

// Frames to 01:80:c2:00:00:0X pass by the bridge and enter the host's stack as
// if the port were an ordinary interface: some by another hook, LLDP's by none.
func TestLinkLocalFrames(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		conn, err := net.ListenPacket("udp4", "0.0.0.0:9999")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		check := func(when string, want bool) {
			for _, last := range []string{"02", "03", "0e", "0f"} {
				for _, to := range []string{gateway, hostWAN} {
					f := ethernet("01:80:c2:00:00:"+last, g.req.MAC, typeIPv4, udp(g.req.Address, to, 9999, "hello"))
					if err := send(g.ns, "eth0", f); err != nil {
						t.Error(err)
					}
					_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					n, _, _ := conn.ReadFrom(make([]byte, 64))
					if got := n > 0; got != want {
						t.Errorf("%s: frame to :%s for %s: arrived %v, want %v", when, last, to, got, want)
					}
				}
				f := ethernet("01:80:c2:00:00:"+last, g.req.MAC, typeARP, arp(1, g.req.MAC, g.req.Address, hostWAN, ""))
				reply := string([]byte{0, 2}) + string(mac(g.portMAC()))
				got, err := seen(g.ns, "eth0", reply, func() error { return send(g.ns, "eth0", f) })
				if err != nil || got != want && when != "before attach" {
					t.Errorf("%s: ARP to :%s: answered %v, want %v, %v", when, last, got, want, err)
				}
			}
		}
		check("before attach", false)
		w.attach(g.req)
		check("attached", false)
		w.openUp(g)
		if err := run("sysctl -q -w net.ipv4.conf." + g.req.Interface + ".arp_ignore=0"); err != nil {
			t.Fatal(err)
		}
		check("with everything open", true)
	})
}

// portMAC is the MAC of the port itself, with which the host would answer.
func (g *guest) portMAC() string {
	i, err := net.InterfaceByName(g.req.Interface)
	if err != nil {
		return broadcast
	}
	return i.HardwareAddr.String()
}

// A port that lost its bridge is an interface of the host. It stays shut.
func TestPortWithoutBridge(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		w.attach(g.req)
		conn, err := net.ListenPacket("udp4", "0.0.0.0:9999")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := run("ip link set " + g.req.Interface + " nomaster"); err != nil {
			t.Fatal(err)
		}
		port, err := net.InterfaceByName(g.req.Interface)
		if err != nil {
			t.Fatal(err)
		}
		check := func(when string, want bool) {
			f := ethernet(port.HardwareAddr.String(), g.req.MAC, typeIPv4, udp(g.req.Address, hostWAN, 9999, "hello"))
			if err := send(g.ns, "eth0", f); err != nil {
				t.Error(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			n, _, _ := conn.ReadFrom(make([]byte, 64))
			if got := n > 0; got != want {
				t.Errorf("%s: arrived %v, want %v", when, got, want)
			}
		}
		check("attached", false)
		a, err := w.driver.ListAttachments(t.Context(), g.req.SandboxID)
		if err != nil || len(a) != 1 || !a[0].Drifted {
			t.Errorf("drift is not reported: %+v, %v", a, err)
		}
		if err := run("nft flush ruleset"); err != nil {
			t.Fatal(err)
		}
		check("with everything open", true)
	})
}

// Sandboxes do not see one another's frames, nor the host's to another.
func TestPortsAreApart(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g, peer := w.newGuest(16, network.ModeNAT), w.newGuest(17, network.ModeNAT)
		w.attach(g.req)
		w.attach(peer.req)
		bridge, err := net.InterfaceByName("vmbr1")
		if err != nil {
			t.Fatal(err)
		}
		hostMAC := bridge.HardwareAddr.String()
		tests := []struct {
			name  string
			bytes func(magic string) []byte
			host  bool // sent by the host into the bridge
		}{
			{"unicast", func(m string) []byte {
				return ethernet(peer.req.MAC, g.req.MAC, typeIPv4, echo(g.req.Address, peer.req.Address, m))
			}, false},
			{"broadcast ARP", func(m string) []byte {
				return ethernet(broadcast, g.req.MAC, typeARP, arp(1, g.req.MAC, g.req.Address, peer.req.Address, m))
			}, false},
			{"ARP that the host may hear", func(m string) []byte {
				return ethernet(broadcast, g.req.MAC, typeARP, arp(1, g.req.MAC, g.req.Address, gateway, m))
			}, false},
			{"IPv6 multicast", func(m string) []byte {
				return ethernet("33:33:00:00:00:01", g.req.MAC, typeIPv6, ipv6("fe80::1", "ff02::1", m))
			}, false},
			{"the host's ARP for another", func(m string) []byte {
				return ethernet(broadcast, hostMAC, typeARP, arp(1, hostMAC, gateway, g.req.Address, m))
			}, true},
			{"the host's router advertisement", func(m string) []byte {
				return ethernet("33:33:00:00:00:01", hostMAC, typeIPv6, ipv6("fe80::1", "ff02::1", m))
			}, true},
			{"the host's frame to an unknown MAC", func(m string) []byte {
				return ethernet(foreign, hostMAC, typeIPv4, echo(gateway, g.req.Address, m))
			}, true},
		}
		check := func(when string, want bool) {
			for i, test := range tests {
				magic := fmt.Sprintf("apart-%v-%08d", want, i)
				got, err := seen(peer.ns, "eth0", magic, func() error {
					if test.host {
						return send(w.host, "vmbr1", test.bytes(magic))
					}
					return send(g.ns, "eth0", test.bytes(magic))
				})
				if err != nil {
					t.Errorf("%s: %v", test.name, err)
				}
				if got != want {
					t.Errorf("%s: %s: arrived %v, want %v", when, test.name, got, want)
				}
			}
		}
		check("attached", false)
		w.openUp(g, peer)
		check("with everything open", true)
	})
}

// The rules alone keep sandboxes apart, and so does isolation alone.
func TestTwoLayersOfIsolation(t *testing.T) {
	for _, layer := range []struct{ name, without string }{
		{"rules alone", "bridge link set dev tap16i0 isolated off"},
		{"isolation alone", "nft flush ruleset"},
	} {
		t.Run(layer.name, func(t *testing.T) {
			inWorld(t, driver.Config{}, func(w *world) {
				w.applyHost()
				g, peer := w.newGuest(16, network.ModeNAT), w.newGuest(17, network.ModeNAT)
				w.serve(peer)
				w.attach(g.req)
				w.attach(peer.req)
				// Without br_netfilter the bridge table is on its own.
				if err := run("sysctl -q -e -w net.bridge.bridge-nf-call-iptables=0", layer.without, "bridge link set dev tap17i0 learning on flood on"); err != nil {
					t.Fatal(err)
				}
				// They need not ask for each other's MAC.
				for _, pair := range [][2]*guest{{g, peer}, {peer, g}} {
					err := inGuest(pair[0], func() error {
						return run("ip neigh replace " + pair[1].req.Address + " lladdr " + pair[1].req.MAC + " dev eth0 nud permanent")
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				target := probe{from: g.ns, target: "tcp " + peer.req.Address + ":7000"}
				w.expect(layer.name, target)
				a, err := w.driver.ListAttachments(t.Context(), g.req.SandboxID)
				if err != nil || layer.name == "rules alone" && (len(a) != 1 || !a[0].Drifted) {
					t.Errorf("drift is not reported: %+v, %v", a, err)
				}
				w.openUp(g, peer)
				w.expectOpen(target)
			})
		})
	}
}

// IPv6 goes nowhere, even to a host that speaks it.
func TestNoIPv6(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		w.attach(g.req)
		err := run("sysctl -q -w net.ipv6.conf.vmbr1.disable_ipv6=0", "ip address add fd00::1/64 dev vmbr1 nodad")
		if err == nil {
			err = netlab.In(g.ns, func() error { return run("ip address add fd00::2/64 dev eth0 nodad") })
		}
		if err != nil {
			t.Fatal(err)
		}
		ping := probe{from: g.ns, target: "ping fd00::1"}
		w.expect("attached", ping)
		w.openUp(g)
		w.expectOpen(ping)
	})
}
