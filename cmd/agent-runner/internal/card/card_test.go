package card_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/card"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/cardtest"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/fault"
)

const mac = "52:54:00:aa:bb:cc"

// guest has a network card: a link in a network namespace, in which in calls.
type guest struct {
	t *testing.T
	layout.Layout
	in func(func() error) error
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{t: t, Layout: layout.Layout{Root: t.TempDir()}}
	g.in = cardtest.New(t, g.Layout)
	for name, now := range map[string]string{"addr_gen_mode": "0", "accept_ra": "1"} {
		g.put("/proc/sys/net/ipv6/conf/eth0/"+name, now)
		g.put("/proc/sys/net/ipv6/conf/default/"+name, now)
	}
	return g
}

func (g *guest) put(path, text string) { g.t.Helper(); cardtest.Put(g.t, g.At(path), text) }

// do has the card do something.
func (g *guest) do(f func(*card.Card) error) {
	g.t.Helper()
	err := g.in(func() error {
		nic, err := card.Open(g.Layout)
		if err != nil {
			return err
		}
		defer nic.Close()
		return f(nic)
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// link is all that a card has been told.
type link struct {
	MAC       string
	Up        bool
	Addresses []string
	Routes    []string
	Generate  string // of IPv6 addresses, by the kernel
	AcceptRA  string
}

func (g *guest) look() (now link) {
	g.t.Helper()
	err := g.in(func() error {
		nic, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		now.MAC, now.Up = nic.Attrs().HardwareAddr.String(), nic.Attrs().Flags&1 != 0
		addrs, err := netlink.AddrList(nic, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() { // the bridge's own: its settings here are files
				now.Addresses = append(now.Addresses, a.IPNet.String())
			}
		}
		routes, err := netlink.RouteList(nic, netlink.FAMILY_V4)
		for _, r := range routes {
			now.Routes = append(now.Routes, r.Dst.String()+" via "+r.Gw.String())
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	slices.Sort(now.Routes)
	conf := g.At("/proc/sys/net/ipv6/conf/eth0/")
	for name, into := range map[string]*string{"addr_gen_mode": &now.Generate, "accept_ra": &now.AcceptRA} {
		b, err := os.ReadFile(filepath.Join(conf, name))
		if err != nil {
			g.t.Error(err)
		}
		*into = string(b)
	}
	return now
}

func network(mac string, change func(*seed.Ethernet)) seed.NetworkConfig {
	no := false
	e := seed.Ethernet{
		Match: seed.Match{MAC: mac}, DHCP4: &no, AcceptRA: &no, Addresses: []string{"10.77.0.42/16", "fd00::42/64"},
		Routes: []seed.Route{{To: "0.0.0.0/0", Via: "10.77.0.1"}, {To: "10.99.0.0/24", Via: "10.77.0.2"}},
	}
	if change != nil {
		change(&e)
	}
	return seed.NetworkConfig{Version: 2, Ethernets: map[string]seed.Ethernet{"agentlab0": e}}
}

// A card that has rehearsed is up, and ends like one that has not.
func TestConfigure(t *testing.T) {
	want := link{
		MAC: mac, Up: true, Addresses: []string{"10.77.0.42/16", "fd00::42/64"},
		Routes:   []string{"0.0.0.0/0 via 10.77.0.1", "10.77.0.0/16 via <nil>", "10.99.0.0/24 via 10.77.0.2"},
		Generate: "1", AcceptRA: "0",
	}
	stage := network("02:00:00:00:00:01", func(e *seed.Ethernet) {
		e.Addresses, e.Routes = []string{"192.0.2.2/24", "2001:db8::2/64"}, []seed.Route{{To: "0.0.0.0/0", Via: "192.0.2.1"}}
	})
	rehearse := func(c *card.Card) error {
		return errors.Join(c.Configure(stage, "02:00:00:00:00:01"), c.Strip(stage, "02:00:00:00:00:01"))
	}
	yes := true
	listens := want
	listens.Generate, listens.AcceptRA = "0", "1"
	for name, c := range map[string]struct {
		before func(*card.Card) error
		n      seed.NetworkConfig
		want   link
	}{
		"new": {nil, network(strings.ToUpper(mac), nil), want},
		// systemd-networkd may have done the same already.
		"configured":         {func(c *card.Card) error { return c.Configure(network(mac, nil), mac) }, network(mac, nil), want},
		"rehearsed":          {rehearse, network(mac, nil), want},
		"listens":            {nil, network(mac, func(e *seed.Ethernet) { e.AcceptRA = &yes }), listens},
		"listens, rehearsed": {rehearse, network(mac, func(e *seed.Ethernet) { e.AcceptRA = &yes }), listens},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			g.do(func(nic *card.Card) error {
				if c.before == nil {
					return nil
				}
				return c.before(nic)
			})
			g.do(func(nic *card.Card) error { return errors.Join(nic.SetMAC(mac), nic.Configure(c.n, mac)) })
			if diff := cmp.Diff(c.want, g.look()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Strip takes what it is told, there or not, and nothing else.
func TestStrip(t *testing.T) {
	g := newGuest(t)
	other := network(mac, func(e *seed.Ethernet) { e.Addresses, e.Routes = []string{"10.88.0.2/24"}, nil })
	want := link{
		MAC: "02:00:00:00:00:09", Up: true, Addresses: []string{"10.88.0.2/24"}, Routes: []string{"10.88.0.0/24 via <nil>"},
		Generate: "1", AcceptRA: "0",
	}
	g.do(func(nic *card.Card) error {
		n := network(mac, func(e *seed.Ethernet) { e.Gateway4 = "10.77.0.3" })
		return errors.Join(nic.Configure(network(mac, nil), mac), nic.Configure(other, mac), nic.Strip(n, mac))
	})
	if diff := cmp.Diff(want, g.look()); diff != "" {
		t.Error(diff)
	}
	want.Addresses, want.Routes = nil, nil
	g.do(func(nic *card.Card) error { return nic.Strip(other, mac) })
	if diff := cmp.Diff(want, g.look()); diff != "" {
		t.Error(diff)
	}
}

func TestOpen(t *testing.T) {
	if _, err := card.Open(layout.Layout{Root: t.TempDir()}); !errors.Is(err, fault.Precondition) {
		t.Errorf("without a card: %v", err)
	}
	g := newGuest(t)
	g.put("/sys/class/net/dummy0/ifindex", "9")
	for _, sole := range []bool{true, false} {
		g.do(func(nic *card.Card) error {
			now, err := nic.MAC()
			if now != "02:00:00:00:00:09" || nic.Sole() != sole {
				t.Errorf("MAC address %s, the only card: %v, want %v", now, nic.Sole(), sole)
			}
			return err
		})
		g.put("/sys/class/net/eth1/device/x", "")
	}
}

func TestEthernetOf(t *testing.T) {
	yes := true
	for name, c := range map[string]struct {
		n     seed.NetworkConfig
		class fault.Class
	}{
		"another card": {network("52:54:00:00:00:00", nil), fault.Invalid},
		"dhcp":         {network(mac, func(e *seed.Ethernet) { e.DHCP4 = &yes }), fault.Unsupported},
		"none":         {seed.NetworkConfig{}, fault.Invalid},
	} {
		if _, err := card.EthernetOf(c.n, mac); !errors.Is(err, c.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
