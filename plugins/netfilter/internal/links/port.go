package links

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Link is one interface as the kernel has it.
type Link struct {
	Name, Kind, Alias string // Kind is "bridge", "tuntap", "veth", "device", …
	MAC               string
	Index, Master     int // Master 0: none
	Up                bool
	Isolated          bool // the rest is of bridge ports only
	Learning, Flood   bool
	raw               netlink.Link
}

// List reads all interfaces of the namespace by name.
func (h Handle) List() (map[string]Link, error) {
	all, err := whole(h.LinkList)
	if err != nil {
		return nil, classify(err, "list links")
	}
	ports, err := whole(h.portFlags)
	if err != nil {
		return nil, classify(err, "list bridge ports")
	}
	out := make(map[string]Link, len(all))
	for _, l := range all {
		a := l.Attrs()
		link := Link{
			Name: a.Name, Kind: l.Type(), Alias: a.Alias, MAC: a.HardwareAddr.String(),
			Index: a.Index, Master: a.MasterIndex, Up: a.Flags&net.FlagUp != 0, raw: l,
		}
		if p, ok := ports[a.Index]; ok {
			link.Isolated, link.Learning, link.Flood = p.isolated, p.learning, p.flood
		}
		out[a.Name] = link
	}
	return out, nil
}

type portFlags struct{ isolated, learning, flood bool }

// portFlags reads the flags of all bridge ports in one dump; the library asks
// for the whole dump once per port.
func (h Handle) portFlags() (map[int]portFlags, error) {
	req := h.request(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_BRIDGE))
	messages, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, err
	}
	out := make(map[int]portFlags)
	for _, m := range messages {
		info := nl.DeserializeIfInfomsg(m)
		attrs, err := nl.ParseRouteAttr(m[info.Len():])
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.Attr.Type != unix.IFLA_PROTINFO|unix.NLA_F_NESTED {
				continue
			}
			nested, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return nil, err
			}
			var p portFlags
			for _, n := range nested {
				set := len(n.Value) > 0 && n.Value[0] != 0
				switch n.Attr.Type {
				case nl.IFLA_BRPORT_ISOLATED:
					p.isolated = set
				case nl.IFLA_BRPORT_LEARNING:
					p.learning = set
				case nl.IFLA_BRPORT_UNICAST_FLOOD:
					p.flood = set
				}
			}
			out[int(info.Index)] = p
		}
	}
	return out, nil
}

// Join makes link an isolated port of bridge that learns nothing and floods
// nothing: frames for mac alone go to it. It does not raise the link.
func (h Handle) Join(link Link, bridge Link, mac string) error {
	if err := silence(link.Name); err != nil {
		return err
	}
	if link.Master != bridge.Index {
		if err := h.LinkSetMasterByIndex(link.raw, bridge.Index); err != nil {
			return classify(err, "put %s into %s", link.Name, bridge.Name)
		}
	}
	if err := h.LinkSetIsolated(link.raw, true); err != nil {
		return classify(err, "isolate %s", link.Name)
	}
	if err := h.LinkSetLearning(link.raw, false); err != nil {
		return classify(err, "stop learning on %s", link.Name)
	}
	if err := h.LinkSetFlood(link.raw, false); err != nil {
		return classify(err, "stop flooding to %s", link.Name)
	}
	hardware, err := net.ParseMAC(mac)
	if err != nil {
		return classify(err, "parse MAC %q", mac)
	}
	return classify(h.NeighSet(&netlink.Neigh{
		LinkIndex: link.Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
		State: netlink.NUD_NOARP, HardwareAddr: hardware,
	}), "bind %s to %s", mac, link.Name)
}

// Raise sets the link up.
func (h Handle) Raise(link Link) error {
	return classify(h.LinkSetUp(link.raw), "raise %s", link.Name)
}

// Remove deletes the link. Gone is fault.NotFound.
func (h Handle) Remove(link Link) error {
	err := h.LinkDel(link.raw)
	if gone(err) {
		return fault.New(fault.NotFound, "delete %s: %w", link.Name, err)
	}
	return classify(err, "delete %s", link.Name)
}

// Mark records whose link it is, in its alias.
func (h Handle) Mark(link Link, mark string) error {
	return classify(h.LinkSetAlias(link.raw, mark), "mark %s", link.Name)
}

// AddressesOf lists the IPv4 addresses of one link with their prefix lengths.
func (h Handle) AddressesOf(link Link) ([]netip.Prefix, error) {
	list, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(link.raw, unix.AF_INET) })
	if err != nil {
		return nil, classify(err, "list addresses of %s", link.Name)
	}
	var out []netip.Prefix
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP.To4())
		ones, _ := a.Mask.Size()
		if ok {
			out = append(out, netip.PrefixFrom(addr, ones))
		}
	}
	return out, nil
}
