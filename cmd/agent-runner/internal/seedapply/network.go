package seedapply

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/card"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/fault"
)

// applyNetwork writes one systemd-networkd file per card, matched by its MAC
// address, and resolv.conf when there are name servers.
func applyNetwork(l layout.Layout, n seed.NetworkConfig) error {
	var servers, search []string
	for _, name := range slices.Sorted(maps.Keys(n.Ethernets)) {
		card := n.Ethernets[name]
		path := l.At("/etc/systemd/network/10-" + plainName(name) + ".network")
		if err := l.Write(path, []byte(networkFile(card)), 0o644, layout.Owner{}); err != nil {
			return fmt.Errorf("configure network card %s: %w", name, err)
		}
		if card.Nameservers != nil {
			servers = append(servers, card.Nameservers.Addresses...)
			search = append(search, card.Nameservers.Search...)
		}
	}
	if len(servers) == 0 {
		return nil
	}
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	// The rename replaces a link to a resolver's file instead of following it.
	if err := l.Write(l.At("/etc/resolv.conf"), []byte(b.String()), 0o644, layout.Owner{}); err != nil {
		return fmt.Errorf("configure name servers: %w", err)
	}
	return nil
}

// ownMAC gives the one card of this guest the address by which the seed's one
// configuration finds it: a VM that was begun before anybody needed it has its own
// address only until the guest reboots. It is nothing where either is not one.
func ownMAC(l layout.Layout, n seed.NetworkConfig) error {
	nic, err := card.Open(l)
	if errors.Is(err, fault.Precondition) {
		return nil
	}
	if err != nil {
		return err
	}
	defer nic.Close()
	if len(n.Ethernets) != 1 || !nic.Sole() {
		return nil
	}
	now, err := nic.MAC()
	if err != nil {
		return err
	}
	for _, e := range n.Ethernets {
		if !strings.EqualFold(now, e.Match.MAC) {
			err = nic.SetMAC(e.Match.MAC)
		}
	}
	return err
}

func networkFile(card seed.Ethernet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Match]\nMACAddress=%s\n\n[Network]\n", card.Match.MAC)
	if card.DHCP4 != nil && *card.DHCP4 {
		b.WriteString("DHCP=ipv4\n")
	} else {
		b.WriteString("DHCP=no\n")
	}
	if card.AcceptRA == nil || !*card.AcceptRA {
		b.WriteString("LinkLocalAddressing=no\nIPv6AcceptRA=no\n")
	}
	for _, a := range card.Addresses {
		fmt.Fprintf(&b, "Address=%s\n", a)
	}
	if card.Gateway4 != "" {
		fmt.Fprintf(&b, "Gateway=%s\n", card.Gateway4)
	}
	isDefault := func(r seed.Route) bool { return r.To == "default" || r.To == "0.0.0.0/0" || r.To == "::/0" }
	for _, r := range card.Routes {
		if isDefault(r) {
			fmt.Fprintf(&b, "Gateway=%s\n", r.Via)
		}
	}
	for _, r := range card.Routes {
		if !isDefault(r) {
			fmt.Fprintf(&b, "\n[Route]\nDestination=%s\nGateway=%s\n", r.To, r.Via)
		}
	}
	return b.String()
}

func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, name)
}
