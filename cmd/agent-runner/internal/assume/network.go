package assume

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/fault"
)

// card is the guest's network card.
type card struct {
	handle *netlink.Handle
	link   netlink.Link
}

// openCard finds the one network card of a VM: the link that has a device behind
// it. The kernel's own list of links would take longer than all the rest.
func openCard(l layout.Layout) (*card, error) {
	links, _ := os.ReadDir(l.At("/sys/class/net"))
	dir := ""
	for _, link := range links {
		here := l.At("/sys/class/net/" + link.Name())
		if _, err := os.Stat(here + "/device"); err == nil {
			dir = here
			break
		}
	}
	if dir == "" {
		return nil, fault.New(fault.Precondition, "this guest has no network card")
	}
	b, err := os.ReadFile(filepath.Join(dir, "ifindex"))
	if err != nil {
		return nil, fmt.Errorf("find network card: %w", err)
	}
	index, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("find network card: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &card{handle: h, link: &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: filepath.Base(dir), Index: index}}}, nil
}

func (c *card) close() {
	if c != nil {
		c.handle.Close()
	}
}

// setMAC changes the address as the card is, up or not: taking a link down just
// after an incoming migration can stop the guest for good.
func (c *card) setMAC(text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return fault.New(fault.Invalid, "read MAC address: %w", err)
	}
	if err := c.handle.LinkSetHardwareAddr(c.link, mac); err != nil {
		return fmt.Errorf("set MAC address: %w", err)
	}
	return nil
}

// configure gives the card what the seed says, as systemd-networkd will at the
// next boot, and brings it up.
func (c *card) configure(l layout.Layout, n seed.NetworkConfig, mac string) error {
	e, err := ethernetOf(n, mac)
	if err != nil {
		return err
	}
	if e.AcceptRA == nil || !*e.AcceptRA {
		conf := l.At("/proc/sys/net/ipv6/conf/" + c.link.Attrs().Name)
		if _, err := os.Stat(conf); err == nil { // else this kernel has no IPv6
			for name, value := range map[string]string{"addr_gen_mode": "1", "accept_ra": "0"} {
				if err := os.WriteFile(conf+"/"+name, []byte(value), 0o644); err != nil {
					return fmt.Errorf("keep IPv6 quiet: %w", err)
				}
			}
		}
	}
	for _, a := range e.Addresses {
		if err := c.addAddress(a); err != nil {
			return err
		}
	}
	if err := c.handle.LinkSetUp(c.link); err != nil {
		return fmt.Errorf("bring network card up: %w", err)
	}
	routes := e.Routes
	if e.Gateway4 != "" {
		routes = append([]seed.Route{{To: "default", Via: e.Gateway4}}, routes...)
	}
	for _, r := range routes {
		if err := c.addRoute(r); err != nil {
			return err
		}
	}
	return nil
}

// ethernetOf finds the configuration of the card. A lease would have to be
// waited for, and the host knows the address anyway.
func ethernetOf(n seed.NetworkConfig, mac string) (seed.Ethernet, error) {
	for _, e := range n.Ethernets {
		if !strings.EqualFold(e.Match.MAC, mac) {
			continue
		}
		if e.DHCP4 != nil && *e.DHCP4 || e.DHCP6 != nil && *e.DHCP6 {
			return e, fault.New(fault.Unsupported, "a guest that starts from memory has no DHCP client")
		}
		return e, nil
	}
	return seed.Ethernet{}, fault.New(fault.Invalid, "the seed does not configure the card %s", mac)
}

func (c *card) addAddress(text string) error {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return fault.New(fault.Invalid, "read address: %w", err)
	}
	a := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the host gave it to nobody else
	}
	if err := c.handle.AddrReplace(c.link, a); err != nil {
		return fmt.Errorf("add address %s: %w", prefix, err)
	}
	return nil
}

func (c *card) addRoute(r seed.Route) error {
	via, err := netip.ParseAddr(r.Via)
	if err != nil {
		return fault.New(fault.Invalid, "read gateway: %w", err)
	}
	route := &netlink.Route{LinkIndex: c.link.Attrs().Index, Gw: via.AsSlice()}
	if r.To != "default" {
		to, err := netip.ParsePrefix(r.To)
		if err != nil {
			return fault.New(fault.Invalid, "read route: %w", err)
		}
		route.Dst = ipNet(to.Masked())
	}
	if err := c.handle.RouteReplace(route); err != nil {
		return fmt.Errorf("add route to %s: %w", r.To, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
