package assume

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestAddEntropy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := addEntropy(layout.Layout{Root: "/"}, bytes.Repeat([]byte{1}, 64)); err != nil {
		t.Error(err)
	}
	l := layout.Layout{Root: t.TempDir()}
	put(t, l.At(randomDevice), "")
	if err := addEntropy(l, []byte{1}); err == nil {
		t.Error("a file was taken for the random pool")
	}
}

// newNIC gives the guest a network card: a link in a network namespace, in
// which its function calls another.
func newNIC(t *testing.T, g *copied) func(func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces")
	}
	ready, calls, results := make(chan error, 1), make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		ns, err := netns.New()
		if err == nil {
			defer ns.Close()
			link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: []byte{2, 0, 0, 0, 0, 9}}}
			err = netlink.LinkAdd(link)
			dir := g.At("/sys/class/net/eth0")
			put(t, dir+"/device/x", "")
			put(t, dir+"/address", "02:00:00:00:00:09\n")
			put(t, dir+"/ifindex", strconv.Itoa(link.Attrs().Index)+"\n")
		}
		ready <- err
		for f := range calls {
			results <- f()
		}
	}()
	if err := <-ready; err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	t.Cleanup(func() { close(calls) })
	return func(f func() error) error { calls <- f; return <-results }
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

func TestNetwork(t *testing.T) {
	const mac = "52:54:00:aa:bb:cc"
	g := newCopy(t)
	for _, name := range []string{"addr_gen_mode", "accept_ra"} {
		put(t, g.At("/proc/sys/net/ipv6/conf/eth0/"+name), "?")
	}
	in := newNIC(t, g)
	err := in(func() error {
		k, done := Real(g.Layout)
		defer done()
		// Twice: systemd-networkd may have done the same already.
		return errors.Join(k.SetMAC(mac), k.Configure(network(strings.ToUpper(mac), nil), mac), k.Configure(network(mac, nil), mac))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = in(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if got := link.Attrs().HardwareAddr.String(); got != mac || link.Attrs().Flags&1 == 0 {
			t.Errorf("MAC address %s, flags %v", got, link.Attrs().Flags)
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		var have []string
		for _, a := range addrs {
			have = append(have, a.IPNet.String())
		}
		if got := strings.Join(have, " "); !strings.Contains(got, "10.77.0.42/16") || !strings.Contains(got, "fd00::42/64") {
			t.Errorf("addresses %s", got)
		}
		routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		have = nil
		for _, r := range routes {
			if r.Gw != nil {
				have = append(have, r.Dst.String()+" via "+r.Gw.String())
			}
		}
		if got := strings.Join(have, ", "); got != "0.0.0.0/0 via 10.77.0.1, 10.99.0.0/24 via 10.77.0.2" {
			t.Errorf("routes %s", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if g.read("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode") != "1" || g.read("/proc/sys/net/ipv6/conf/eth0/accept_ra") != "0" {
		t.Error("the link gives itself IPv6 addresses")
	}
}

func TestNetworkRefused(t *testing.T) {
	const mac = "52:54:00:aa:bb:cc"
	yes := true
	for name, c := range map[string]struct {
		n     seed.NetworkConfig
		class fault.Class
	}{
		"another card": {network("52:54:00:00:00:00", nil), fault.Invalid},
		"dhcp":         {network(mac, func(e *seed.Ethernet) { e.DHCP4 = &yes }), fault.Unsupported},
		"none":         {seed.NetworkConfig{}, fault.Invalid},
	} {
		if _, err := ethernetOf(c.n, mac); !errors.Is(err, c.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := openCard(layout.Layout{Root: t.TempDir()}); !errors.Is(err, fault.Precondition) {
		t.Errorf("without a card: %v", err)
	}
}
