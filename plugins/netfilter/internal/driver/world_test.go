package driver_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/netlab"
	"github.com/agentlab/agentlab/sdk/network"
)

// Where probes go. All but the host's own live in the outside namespace.
const (
	internet  = "198.51.100.7"
	neighbour = "10.99.0.5"
	hostWAN   = "192.0.2.1"
	gateway   = "10.77.0.1"
	tailPeer  = "100.64.0.2"
	exitPeer  = "203.0.113.50" // a public address that the tailnet routes
)

var outside = []string{
	internet, neighbour, "172.16.3.3", "192.168.7.7", "100.65.1.1",
	"169.254.169.254", "168.63.129.16", "198.18.0.9",
}

var hostWish = network.Host{Bridge: "vmbr1", Subnet: "10.77.0.0/16", Address: gateway, GuestTCPPorts: []uint16{8844}}

// world is a host with a way out, a tailnet and a driver, in namespaces that
// vanish with the test.
type world struct {
	t      *testing.T
	driver *driver.Driver
	host   netns.NsHandle
	wan    netns.NsHandle
	tail   netns.NsHandle
}

// inWorld runs f in the host's namespace of a new world.
func inWorld(t *testing.T, cfg driver.Config, f func(w *world)) {
	t.Helper()
	t.Parallel() // they mostly wait
	netlab.Run(t, func() {
		w := &world{t: t, wan: netlab.New(t), tail: netlab.New(t)}
		host, err := netns.Get()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = host.Close() }()
		w.host = host
		if err := w.build(); err != nil {
			t.Error(err)
			return
		}
		cfg.NFTBinary, cfg.HostUUID = "nft", "0b1e"
		w.driver = driver.New(cfg, nullLogger())
		f(w)
	})
}

func (w *world) build() error {
	if err := w.join("wan0", hostWAN+"/24", w.wan, "192.0.2.2/24"); err != nil {
		return err
	}
	if err := w.join("tailscale0", "100.64.0.1/24", w.tail, tailPeer+"/24"); err != nil {
		return err
	}
	if err := run("ip route add default via 192.0.2.2", "ip route add "+exitPeer+" via "+tailPeer, "ip link set lo up"); err != nil {
		return err
	}
	err := netlab.In(w.wan, func() error {
		lines := []string{"ip link set lo up", "ip route add 10.77.0.0/16 via " + hostWAN}
		for _, a := range outside {
			lines = append(lines, "ip address add "+a+"/32 dev lo")
		}
		if err := run(lines...); err != nil {
			return err
		}
		return w.listen("0.0.0.0:80", "0.0.0.0:443")
	})
	if err != nil {
		return err
	}
	err = netlab.In(w.tail, func() error {
		if err := run("ip link set lo up", "ip address add "+exitPeer+"/32 dev lo", "ip route add 10.77.0.0/16 via 100.64.0.1"); err != nil {
			return err
		}
		return w.listen("0.0.0.0:80")
	})
	if err != nil {
		return err
	}
	return w.listen("0.0.0.0:22", "0.0.0.0:8006", "0.0.0.0:8844", "0.0.0.0:80")
}

// join puts a veth between this namespace and another.
func (w *world) join(name, address string, other netns.NsHandle, otherAddress string) error {
	peer := fmt.Sprintf("p-%.6s", name)
	if err := run("ip link add " + name + " type veth peer name " + peer); err != nil {
		return err
	}
	if err := moveLink(peer, other); err != nil {
		return err
	}
	if err := run("ip address add "+address+" dev "+name, "ip link set "+name+" up"); err != nil {
		return err
	}
	return netlab.In(other, func() error {
		return run("ip link set "+peer+" name eth0", "ip address add "+otherAddress+" dev eth0", "ip link set eth0 up")
	})
}

func moveLink(name string, to netns.NsHandle) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetNsFd(link, int(to))
}

// listen serves TCP in the caller's namespace until the test ends: one byte to
// whoever connects, then echo.
func (w *world) listen(addresses ...string) error {
	for _, a := range addresses {
		l, err := net.Listen("tcp4", a)
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				w.t.Cleanup(func() { _ = c.Close() })
				_, _ = c.Write([]byte("x"))
				go func() { _, _ = io.Copy(c, c) }()
			}
		}()
	}
	return nil
}

// guest is a sandbox's side: a namespace whose eth0 is a port of the bridge.
type guest struct {
	ns  netns.NsHandle
	req network.AttachRequest
}

// newGuest makes the sandbox's link, in the bridge but not attached.
func (w *world) newGuest(n int, mode network.Mode, allow ...network.Allow) *guest {
	w.t.Helper()
	g := &guest{ns: netlab.New(w.t), req: network.AttachRequest{
		SandboxID: fmt.Sprintf("sbx_%d", n), Generation: 1, Bridge: "vmbr1", Interface: fmt.Sprintf("tap%di0", n),
		MAC: fmt.Sprintf("52:54:00:00:00:%02x", n), Address: fmt.Sprintf("10.77.0.%d", n), Mode: mode, Allow: allow,
	}}
	peer := fmt.Sprintf("p-%d", n)
	err := run("ip link add "+g.req.Interface+" type veth peer name "+peer+" address "+g.req.MAC,
		"ip link set "+g.req.Interface+" master vmbr1 up")
	if err == nil {
		err = moveLink(peer, g.ns)
	}
	if err == nil {
		err = netlab.In(g.ns, func() error {
			return run("ip link set "+peer+" name eth0", "ip link set lo up", "ip address add "+g.req.Address+"/16 dev eth0",
				"ip link set eth0 up", "ip route add default via "+gateway)
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) applyHost() {
	w.t.Helper()
	if _, err := w.driver.ApplyHost(context.Background(), hostWish); err != nil {
		w.t.Fatalf("apply host: %v", err)
	}
}

func (w *world) attach(req network.AttachRequest) network.Attachment {
	w.t.Helper()
	a, err := w.driver.Attach(context.Background(), req)
	if err != nil {
		w.t.Fatalf("attach %s: %v", req.SandboxID, err)
	}
	return a
}

// openUp takes every protection away, as the control of a test: what a test
// expects to be shut must be reachable now.
func (w *world) openUp(guests ...*guest) {
	w.t.Helper()
	lines := []string{
		"nft flush ruleset",
		"nft add table ip control",
		"nft add chain ip control post { type nat hook postrouting priority 100; }",
		"nft add rule ip control post oifname != vmbr1 masquerade",
	}
	for _, g := range guests {
		lines = append(lines, "bridge link set dev "+g.req.Interface+" isolated off learning on flood on")
	}
	if err := run(append(lines, "ip neigh flush all")...); err != nil {
		w.t.Fatal(err)
	}
	for _, g := range guests {
		if err := inGuest(g, func() error { return run("ip neigh flush all") }); err != nil {
			w.t.Fatal(err)
		}
	}
}

// run executes commands, split at spaces, in the caller's namespace.
func run(lines ...string) error {
	for _, line := range lines {
		f := strings.Fields(line)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		cmd := exec.CommandContext(ctx, f[0], f[1:]...)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Println("packet tests of the network driver are skipped: needs root and network namespaces")
	}
	os.Exit(m.Run())
}

func inGuest(g *guest, f func() error) error { return netlab.In(g.ns, f) }

func nullLogger() hclog.Logger { return hclog.NewNullLogger() }
