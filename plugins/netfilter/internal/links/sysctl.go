package links

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Setting is one sysctl below net, with slashes: "ipv4/ip_forward".
type Setting struct{ Key, Value string }

// Forwarding makes this host route for its sandboxes.
var Forwarding = Setting{"ipv4/ip_forward", "1"}

// BridgeSettings are the sysctls of the agent bridge. IPv6 entries are left out
// on a kernel without IPv6.
func BridgeSettings(bridge string) []Setting {
	v4, v6 := "ipv4/conf/"+bridge+"/", "ipv6/conf/"+bridge+"/"
	settings := []Setting{
		{v4 + "rp_filter", "1"},
		{v4 + "accept_redirects", "0"},
		{v4 + "send_redirects", "0"},
		{v4 + "accept_source_route", "0"},
		{v4 + "proxy_arp", "0"},
		{v4 + "route_localnet", "0"},
	}
	if hasIPv6() {
		settings = append(settings, Setting{v6 + "disable_ipv6", "1"}, Setting{v6 + "accept_ra", "0"})
	}
	return settings
}

// Get reads a sysctl.
func Get(key string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net", key))
	if err != nil {
		return "", classify(err, "read sysctl net/%s", key)
	}
	return strings.TrimSpace(string(text)), nil
}

// Set writes a sysctl if it has another value, and reports whether it had.
func Set(s Setting) (changed bool, err error) {
	current, err := Get(s.Key)
	if err != nil || current == s.Value {
		return false, err
	}
	err = os.WriteFile(filepath.Join("/proc/sys/net", s.Key), []byte(s.Value), 0)
	return err == nil, classify(err, "set sysctl net/%s to %s", s.Key, s.Value)
}

// silence keeps this host's own stack from speaking on a port. Frames that pass
// by the bridge reach it: it must not tell by ARP which addresses it has.
func silence(name string) error {
	settings := []Setting{{"ipv4/conf/" + name + "/arp_ignore", "8"}}
	if hasIPv6() {
		settings = append(settings, Setting{"ipv6/conf/" + name + "/disable_ipv6", "1"})
	}
	for _, s := range settings {
		if _, err := Set(s); err != nil {
			return err
		}
	}
	return nil
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return !errors.Is(err, fs.ErrNotExist)
}
