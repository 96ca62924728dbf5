package card

import (
	"errors"
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

// What decides of the IPv6 addresses that a link gives itself.
const (
	generateMode = "addr_gen_mode"
	acceptRA     = "accept_ra"
)

// Card is the guest's network card. Close it.
type Card struct {
	layout layout.Layout
	handle *netlink.Handle
	link   netlink.Link
	sole   bool
}

// Open finds the network card of a VM: the first link that has a device behind
// it. The kernel's own list of links would take longer than all the rest.
// fault.Precondition: there is none.
func Open(l layout.Layout) (*Card, error) {
	links, _ := os.ReadDir(l.At("/sys/class/net"))
	var dirs []string
	for _, link := range links {
		here := l.At("/sys/class/net/" + link.Name())
		if _, err := os.Stat(here + "/device"); err == nil {
			dirs = append(dirs, here)
		}
	}
	if len(dirs) == 0 {
		return nil, fault.New(fault.Precondition, "this guest has no network card")
	}
	b, err := os.ReadFile(filepath.Join(dirs[0], "ifindex"))
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
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: filepath.Base(dirs[0]), Index: index}}
	return &Card{layout: l, handle: h, link: link, sole: len(dirs) == 1}, nil
}

// Close lets go of netlink. The card stays as it is.
func (c *Card) Close() {
	if c != nil {
		c.handle.Close()
	}
}

// Sole tells whether the guest has no other card.
func (c *Card) Sole() bool { return c.sole }

// MAC gives the address that the card has now.
func (c *Card) MAC() (string, error) {
	b, err := os.ReadFile(c.layout.At("/sys/class/net/" + c.link.Attrs().Name + "/address"))
	if err != nil {
		return "", fmt.Errorf("read MAC address: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// SetMAC changes the address as the card is, up or not: taking a link down just
// after an incoming migration can stop the guest for good.
func (c *Card) SetMAC(text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return fault.New(fault.Invalid, "read MAC address: %w", err)
	}
	if err := c.handle.LinkSetHardwareAddr(c.link, mac); err != nil {
		return fmt.Errorf("set MAC address: %w", err)
	}
	return nil
}

// Configure gives the card what the seed says, as systemd-networkd will at the
// next boot, and brings it up. It ends the same on a card that is up already.
func (c *Card) Configure(n seed.NetworkConfig, mac string) error {
	e, err := EthernetOf(n, mac)
	if err != nil {
		return err
	}
	if err := c.listen(e.AcceptRA != nil && *e.AcceptRA); err != nil {
		return err
	}
	for _, a := range e.Addresses {
		address, err := addressOf(a)
		if err != nil {
			return err
		}
		if err := c.handle.AddrReplace(c.link, address); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := c.handle.LinkSetUp(c.link); err != nil {
		return fmt.Errorf("bring network card up: %w", err)
	}
	for _, r := range routesOf(e) {
		route, err := c.routeOf(r)
		if err != nil {
			return err
		}
		if err := c.handle.RouteReplace(route); err != nil {
			return fmt.Errorf("add route to %s: %w", r.To, err)
		}
	}
	return nil
}

// Strip takes off what Configure gave the card, as far as it is there. The link
// stays up, see SetMAC, and gives itself no address.
func (c *Card) Strip(n seed.NetworkConfig, mac string) error {
	e, err := EthernetOf(n, mac)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range routesOf(e) {
		route, err := c.routeOf(r)
		if err == nil {
			err = c.handle.RouteDel(route)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", r.To, err))
		}
	}
	for _, a := range e.Addresses {
		address, err := addressOf(a)
		if err == nil {
			err = c.handle.AddrDel(c.link, address)
		}
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove address %s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

// listen has the link give itself IPv6 addresses, as its kernel does without
// being told, or none. A rehearsal has told it before.
func (c *Card) listen(routers bool) error {
	conf := c.layout.At("/proc/sys/net/ipv6/conf/")
	here := filepath.Join(conf, c.link.Attrs().Name)
	if _, err := os.Stat(here); err != nil {
		return nil // this kernel has no IPv6
	}
	values := map[string]string{generateMode: "1", acceptRA: "0"}
	for _, name := range []string{acceptRA, generateMode} {
		value := []byte(values[name])
		if routers {
			var err error
			if value, err = os.ReadFile(filepath.Join(conf, "default", name)); err != nil {
				return fmt.Errorf("listen to routers: %w", err)
			}
		}
		if err := os.WriteFile(filepath.Join(here, name), value, 0o644); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// EthernetOf finds the configuration of the card. A lease would have to be
// waited for, and the host knows the address anyway.
func EthernetOf(n seed.NetworkConfig, mac string) (seed.Ethernet, error) {
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

func addressOf(text string) (*netlink.Addr, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read address: %w", err)
	}
	a := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the host gave it to nobody else
	}
	return a, nil
}

func routesOf(e seed.Ethernet) []seed.Route {
	if e.Gateway4 == "" {
		return e.Routes
	}
	return append([]seed.Route{{To: "default", Via: e.Gateway4}}, e.Routes...)
}

func (c *Card) routeOf(r seed.Route) (*netlink.Route, error) {
	via, err := netip.ParseAddr(r.Via)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read gateway: %w", err)
	}
	route := &netlink.Route{LinkIndex: c.link.Attrs().Index, Gw: via.AsSlice()}
	if r.To != "default" {
		to, err := netip.ParsePrefix(r.To)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read route: %w", err)
		}
		route.Dst = ipNet(to.Masked())
	}
	return route, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
