package lab

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseAllow(t *testing.T) {
	rule := func(prefix, protocol string, first, last uint16) AllowRule {
		return AllowRule{netip.MustParsePrefix(prefix), protocol, first, last}
	}
	tests := map[string]AllowRule{
		"192.0.2.0/24":             rule("192.0.2.0/24", "", 0, 0),
		"192.0.2.7":                rule("192.0.2.7/32", "", 0, 0),
		"192.0.2.7:443":            rule("192.0.2.7/32", "", 443, 443),
		"10.1.0.0/16:8000-8099":    rule("10.1.0.0/16", "", 8000, 8099),
		"192.0.2.7:53/udp":         rule("192.0.2.7/32", "udp", 53, 53),
		"192.0.2.0/24/icmp":        rule("192.0.2.0/24", "icmp", 0, 0),
		"198.51.100.0/24/tcp":      rule("198.51.100.0/24", "tcp", 0, 0),
		"192.168.1.1/32:1-65535":   rule("192.168.1.1/32", "", 1, 65535),
		"203.0.113.128/25:443/tcp": rule("203.0.113.128/25", "tcp", 443, 443),
	}
	for entry, want := range tests {
		got, err := ParseAllow([]string{entry})
		if err != nil {
			t.Errorf("%q: %v", entry, err)
			continue
		}
		if diff := cmp.Diff([]AllowRule{want}, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", entry, diff)
		}
	}
}

func TestParseAllowRefuses(t *testing.T) {
	tests := map[string]string{
		"0.0.0.0/0":              "mode nat",
		"0.0.0.0/1":              "this network",
		"10.0.0.0/8":             "name the port",
		"100.100.100.200":        "name the port",
		"169.254.169.254:80":     "link-local",
		"168.63.129.16:80":       "metadata",
		"127.0.0.1:22":           "loopback",
		"224.0.0.1:1":            "multicast",
		"192.0.2.1/24":           "192.0.2.0/24",
		"192.0.2.1:0":            "no port",
		"192.0.2.1:70000":        "no port",
		"192.0.2.1:20-10":        "no port",
		"192.0.2.1:":             "no port",
		"192.0.2.1:80/icmp":      "no ports",
		"[2001:db8::1]:443":      "IPv4",
		"2001:db8::/32":          "IPv4",
		"example.org:443":        "IPv4",
		"":                       "empty",
		" 192.0.2.1":             "spaces",
		"::ffff:192.0.2.1/128":   "IPv4",
		"255.255.255.255:9/udp":  "never allowed",
		"160.0.0.0/3:443":        "never allowed",
		"192.0.2.1:80/sctp":      "no port",
		"192.0.2.0/24:80:90/tcp": "IPv6",
	}
	for entry, want := range tests {
		_, err := ParseAllow([]string{"192.0.2.9", entry})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"`+entry+`"`) {
			t.Errorf("%q: error = %v, want one with %q that names the entry", entry, err, want)
		}
	}
}

func TestAllowRuleReaches(t *testing.T) {
	rules, err := ParseAllow([]string{"10.77.3.0/24:80", "10.78.0.0/16:80"})
	if err != nil {
		t.Fatal(err)
	}
	subnet := netip.MustParsePrefix("10.77.0.0/16")
	if !rules[0].Reaches(subnet) || rules[1].Reaches(subnet) {
		t.Errorf("Reaches = %v, %v, want true, false", rules[0].Reaches(subnet), rules[1].Reaches(subnet))
	}
}
