package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

var (
	host = policy.Host{
		Bridge: "vmbr1", Subnet: netip.MustParsePrefix("10.77.0.0/16"),
		Address: netip.MustParseAddr("10.77.0.1"), Ports: []uint16{8844},
	}
	own = []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.77.0.1"),
		netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("192.168.1.2"),
	}
)

func request() network.AttachRequest {
	return network.AttachRequest{
		SandboxID: "sbx_a", Generation: 1, Bridge: "vmbr1", Interface: "tap1000i0",
		MAC: "52:54:00:00:00:01", Address: "10.77.3.232", Mode: network.ModeAllowlist,
	}
}

func TestParseAllow(t *testing.T) {
	tests := []struct {
		cidr, protocol string
		first, last    uint16
		refused        string // part of the message; "" is accepted
	}{
		{cidr: "198.51.100.0/24"},
		{cidr: "198.51.100.7"},
		{cidr: "198.51.100.7/32", protocol: "tcp", first: 443},
		{cidr: "198.51.100.7/32", protocol: "udp", first: 1, last: 65535},
		{cidr: "198.51.100.7/32", protocol: "icmp"},
		{cidr: "10.1.2.3/32", protocol: "tcp", first: 443},
		{cidr: "10.1.0.0/16", first: 80, last: 90},
		{cidr: "192.168.1.3/32", first: 22},
		{cidr: "100.64.0.9/32", first: 443},
		{cidr: "10.1.2.3/32", refused: "needs a port"},
		{cidr: "10.1.2.3/32", protocol: "tcp", refused: "needs a port"},
		{cidr: "10.1.2.3/32", protocol: "icmp", refused: "needs a port"},
		{cidr: "100.64.0.0/10", first: 443, refused: "never open"}, // holds the tailnet's resolver
		{cidr: "172.0.0.0/8", first: 443, refused: "private range"},
		{cidr: "0.0.0.0/0", refused: "every address"},
		{cidr: "0.0.0.0/1", first: 443, refused: "never open"},
		{cidr: "128.0.0.0/1", first: 443, refused: "never open"},
		{cidr: "8.0.0.0/6", first: 443, refused: "never open"},
		{cidr: "10.0.0.0/8", first: 443, refused: "agent subnet"},
		{cidr: "10.77.9.9/32", first: 443, refused: "agent subnet"},
		{cidr: "10.77.0.1/32", first: 22, refused: "agent subnet"},
		{cidr: "203.0.113.0/24", first: 443, refused: "own address"},
		{cidr: "192.168.1.0/24", first: 22, refused: "own address"},
		{cidr: "127.0.0.1/32", first: 80, refused: "loopback"},
		{cidr: "169.254.169.254/32", first: 80, refused: "metadata"},
		{cidr: "168.63.129.16/32", first: 80, refused: "metadata"},
		{cidr: "168.63.0.0/16", first: 80, refused: "metadata"},
		{cidr: "100.100.100.200/32", first: 80, refused: "metadata"},
		{cidr: "224.0.0.1/32", first: 80, refused: "multicast"},
		{cidr: "255.255.255.255/32", first: 80, refused: "multicast"},
		{cidr: "fd00::/8", refused: "IPv6"},
		{cidr: "::ffff:198.51.100.7/128", refused: "IPv6"},
		{cidr: "198.51.100.7/24", refused: "host bits"},
		{cidr: "example.org", refused: "not an IPv4"},
		{cidr: "", refused: "not an IPv4"},
		{cidr: "198.51.100.7/32", protocol: "sctp", refused: "protocol"},
		{cidr: "198.51.100.7/32", protocol: "tcp accept; drop", refused: "protocol"},
		{cidr: "198.51.100.7/32", protocol: "icmp", first: 1, refused: "no ports"},
		{cidr: "198.51.100.7/32", first: 90, last: 80, refused: "range"},
		{cidr: "198.51.100.7/32", last: 80, refused: "range"},
	}
	for _, test := range tests {
		in := network.Allow{CIDR: test.cidr, Protocol: test.protocol, FirstPort: test.first, LastPort: test.last}
		_, err := policy.ParseAllow(in, host, own)
		switch {
		case test.refused == "" && err != nil:
			t.Errorf("%+v: %v", in, err)
		case test.refused != "" && (fault.ClassOf(err) != fault.Invalid || !strings.Contains(err.Error(), test.refused)):
			t.Errorf("%+v: error %v, want one with %q", in, err, test.refused)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]func(*network.AttachRequest){
		"no id":                    func(r *network.AttachRequest) { r.SandboxID = "" },
		"an id with a space":       func(r *network.AttachRequest) { r.SandboxID = "a b" },
		"an id with a brace":       func(r *network.AttachRequest) { r.SandboxID = "a}" },
		"a long id":                func(r *network.AttachRequest) { r.SandboxID = strings.Repeat("a", 41) },
		"a wildcard interface":     func(r *network.AttachRequest) { r.Interface = "tap*" },
		"a quoted interface":       func(r *network.AttachRequest) { r.Interface = `tap"` },
		"a long interface":         func(r *network.AttachRequest) { r.Interface = "tap4567890123456" },
		"the bridge as interface":  func(r *network.AttachRequest) { r.Interface = "vmbr1" },
		"a multicast MAC":          func(r *network.AttachRequest) { r.MAC = "01:00:5e:00:00:01" },
		"a zero MAC":               func(r *network.AttachRequest) { r.MAC = "00:00:00:00:00:00" },
		"a long MAC":               func(r *network.AttachRequest) { r.MAC = "52:54:00:00:00:01:02:03" },
		"no MAC":                   func(r *network.AttachRequest) { r.MAC = "" },
		"the gateway's address":    func(r *network.AttachRequest) { r.Address = "10.77.0.1" },
		"the network's address":    func(r *network.AttachRequest) { r.Address = "10.77.0.0" },
		"the broadcast address":    func(r *network.AttachRequest) { r.Address = "10.77.255.255" },
		"an address elsewhere":     func(r *network.AttachRequest) { r.Address = "10.78.0.9" },
		"an IPv6 address":          func(r *network.AttachRequest) { r.Address = "fd00::9" },
		"a mapped address":         func(r *network.AttachRequest) { r.Address = "::ffff:10.77.0.9" },
		"an unknown mode":          func(r *network.AttachRequest) { r.Mode = "open" },
		"no mode":                  func(r *network.AttachRequest) { r.Mode = "" },
		"off with allow":           func(r *network.AttachRequest) { r.Mode, r.Allow = "off", []network.Allow{{CIDR: "198.51.100.7/32"}} },
		"nat with a forbidden one": func(r *network.AttachRequest) { r.Mode, r.Allow = "nat", []network.Allow{{CIDR: "10.1.2.3/32"}} },
		"too many": func(r *network.AttachRequest) {
			for range policy.MaxAllow + 1 {
				r.Allow = append(r.Allow, network.Allow{CIDR: "198.51.100.7/32"})
			}
		},
	}
	if _, err := policy.Parse(request(), host, own); err != nil {
		t.Fatalf("the request that the cases change: %v", err)
	}
	for name, change := range tests {
		req := request()
		change(&req)
		if _, err := policy.Parse(req, host, own); fault.ClassOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every part gets its one spelling, and a repetition goes.
func TestParseIsCanonical(t *testing.T) {
	req := request()
	req.MAC = "52-54-00-00-00-0A"
	req.Allow = []network.Allow{
		{CIDR: "198.51.100.7", Protocol: "tcp", FirstPort: 443},
		{CIDR: "192.88.0.0/16"},
		{CIDR: "198.51.100.7/32", Protocol: "tcp", FirstPort: 443, LastPort: 443},
	}
	p, err := policy.Parse(req, host, own)
	if err != nil {
		t.Fatal(err)
	}
	want := request()
	want.MAC = "52:54:00:00:00:0a"
	want.Allow = []network.Allow{
		{CIDR: "198.51.100.7/32", Protocol: "tcp", FirstPort: 443, LastPort: 443},
		{CIDR: "192.88.0.0/16"},
	}
	if diff := cmp.Diff(want, p.Request("vmbr1")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPermits(t *testing.T) {
	base := request()
	base.Allow = []network.Allow{
		{CIDR: "198.51.100.0/24", Protocol: "tcp", FirstPort: 80, LastPort: 90},
		{CIDR: "10.1.2.3/32", FirstPort: 53},
		{CIDR: "203.0.112.0/24", Protocol: "icmp"},
	}
	off, nat := request(), base
	off.Mode, nat.Mode = network.ModeOff, network.ModeNAT
	tests := []struct {
		to                     string
		protocol               uint8
		port                   uint16
		off, allow, throughNAT bool
	}{
		{"10.77.0.1", policy.TCP, 8844, true, true, true},
		{"10.77.0.1", policy.ICMP, 0, true, true, true},
		{"10.77.0.1", policy.TCP, 22, false, false, false},
		{"10.77.0.1", policy.UDP, 8844, false, false, false},
		{"198.51.100.9", policy.TCP, 80, false, true, true},
		{"198.51.100.9", policy.TCP, 91, false, false, true},
		{"198.51.100.9", policy.UDP, 80, false, false, true},
		{"10.1.2.3", policy.UDP, 53, false, true, true},
		{"10.1.2.3", policy.TCP, 53, false, true, true},
		{"10.1.2.3", policy.ICMP, 0, false, false, false},
		{"10.1.2.4", policy.TCP, 53, false, false, false},
		{"203.0.112.5", policy.ICMP, 0, false, true, true},
		{"203.0.112.5", policy.TCP, 80, false, false, true},
		{"169.254.169.254", policy.TCP, 80, false, false, false},
		{"10.77.0.99", policy.TCP, 22, false, false, false},
	}
	for _, test := range tests {
		for _, one := range []struct {
			req  network.AttachRequest
			want bool
		}{{off, test.off}, {base, test.allow}, {nat, test.throughNAT}} {
			p, err := policy.Parse(one.req, host, own)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Permits(host, netip.MustParseAddr(test.to), test.protocol, test.port); got != one.want {
				t.Errorf("%s: %s protocol %d port %d: permitted %v, want %v", one.req.Mode, test.to, test.protocol, test.port, got, one.want)
			}
		}
	}
}
