package seedapply_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/agentlab/agentlab/core/seed"
)

// inNetwork calls f in a network namespace with the link eth0, which has a device,
// and gives the address that the link has afterwards.
func (g *guest) inNetwork(mac string, f func() error) string {
	g.t.Helper()
	if os.Geteuid() != 0 {
		g.t.Skip("needs root and network namespaces")
	}
	var now string
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		ns, err := netns.New()
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		address, err := net.ParseMAC(mac)
		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: address}}
		if err = errors.Join(err, netlink.LinkAdd(link)); err != nil {
			done <- err
			return
		}
		g.put("/sys/class/net/eth0/device/x", "")
		g.put("/sys/class/net/eth0/address", mac+"\n")
		g.put("/sys/class/net/eth0/ifindex", strconv.Itoa(link.Attrs().Index)+"\n")
		err = f()
		after, lookErr := netlink.LinkByName("eth0")
		if lookErr == nil {
			now = after.Attrs().HardwareAddr.String()
		}
		done <- errors.Join(err, lookErr)
	}()
	if err := <-done; err != nil {
		g.t.Fatal(err)
	}
	return now
}

// A VM that was begun before anybody needed it comes up with another address than
// its seed knows it by, each time.
func TestApplyGivesTheCardItsMAC(t *testing.T) {
	const born, own = "52:54:00:00:00:0f", "52:54:00:00:00:01" // the latter in documents
	second := func(d *seed.Documents) {
		var n seed.NetworkConfig
		if err := json.Unmarshal(d.NetworkConfig, &n); err != nil {
			t.Fatal(err)
		}
		n.Ethernets["second"] = seed.Ethernet{Match: seed.Match{MAC: "52:54:00:00:00:02"}}
		var err error
		if d.NetworkConfig, err = json.Marshal(n); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		card  string // in the guest beside eth0
		seed  func(*seed.Documents)
		reset bool // it was applied before
		want  string
	}{
		"first boot":            {want: own},
		"reboot":                {reset: true, want: own},
		"a link without device": {card: "/sys/class/net/dummy0/x", want: own},
		"two cards":             {card: "/sys/class/net/eth1/device/x", want: born},
		"two in the seed":       {seed: second, want: born},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			d := documents(t, "sbx_1")
			if c.seed != nil {
				c.seed(&d)
			}
			if c.card != "" {
				g.put(c.card, "")
			}
			g.insert("vdb", d)
			if c.reset {
				if err := g.apply(); err != nil {
					t.Fatal(err)
				}
			}
			if now := g.inNetwork(born, g.apply); now != c.want {
				t.Errorf("the card has %s, want %s", now, c.want)
			}
			if c.card == "" && c.seed == nil {
				checkApplied(g)
			}
		})
	}
	t.Run("without a seed", func(t *testing.T) {
		g := newGuest(t)
		if now := g.inNetwork(born, g.apply); now != born {
			t.Errorf("the card has %s", now)
		}
	})
}

// An address that the card refuses is an error of each boot, and of nothing else.
func TestApplyMACRefused(t *testing.T) {
	g := newGuest(t)
	d := documents(t, "sbx_1")
	const multicast = "01:00:5e:00:00:01"
	d.NetworkConfig = bytes.ReplaceAll(d.NetworkConfig, []byte("52:54:00:00:00:01"), []byte(multicast))
	g.insert("vdb", d)
	for _, boot := range []string{"first", "second"} {
		g.inNetwork("52:54:00:00:00:0f", func() error {
			if err := g.apply(); err == nil || !strings.Contains(err.Error(), "set MAC address") {
				t.Errorf("%s boot: %v", boot, err)
			}
			return nil
		})
		if g.read("/etc/hostname") != "otter\n" {
			t.Errorf("%s boot: the rest was not applied", boot)
		}
		g.put("/var/lib/agentlab/seed.json", `{"instance_id":"sbx_1"}`)
	}
}
