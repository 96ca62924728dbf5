package links

import (
	"crypto/rand"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// BridgeMark is the alias of a bridge that we made. What does not carry it is
// somebody else's and is not changed.
const BridgeMark = "agentlab"

// MakeBridge makes an empty bridge, down, with an own MAC: without one it takes
// over the lowest MAC among its ports, and guests would lose their gateway each
// time a tap comes or goes.
func (h Handle) MakeBridge(name string) error {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails, see crypto/rand
	mac[0] = mac[0]&^1 | 2
	snooping := false
	bridge := &netlink.Bridge{
		LinkAttrs:         netlink.LinkAttrs{Name: name, HardwareAddr: mac},
		MulticastSnooping: &snooping,
	}
	if err := h.LinkAdd(bridge); err != nil {
		return classify(err, "make bridge %s", name)
	}
	return classify(h.LinkSetAlias(bridge, BridgeMark), "mark bridge %s", name)
}

// Assign gives the link its address, next to those that it has.
func (h Handle) Assign(link Link, address netip.Prefix) error {
	addr, err := netlink.ParseAddr(address.String())
	if err != nil {
		return classify(err, "parse address %s", address)
	}
	return classify(h.AddrReplace(link.raw, addr), "give %s to %s", address, link.Name)
}
