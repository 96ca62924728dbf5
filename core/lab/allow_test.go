package lab_test

import (
	"net/netip"
	"testing"

	"github.com/agentlab/agentlab/core/lab"
)

func TestParseAllow(t *testing.T) {
	tests := []struct {
		in   string
		want lab.Allow
		bad  bool
	}{
		{in: "192.0.2.0/24", want: lab.Allow{Prefix: netip.MustParsePrefix("192.0.2.0/24")}},
		{in: "192.0.2.7:443", want: lab.Allow{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Protocol: "tcp", FirstPort: 443, LastPort: 443}},
		{in: "192.0.2.0/24:8000-8099/udp", want: lab.Allow{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Protocol: "udp", FirstPort: 8000, LastPort: 8099}},
		{in: "192.0.2.7/icmp", want: lab.Allow{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Protocol: "icmp"}},
		{in: "192.0.2.7/24", bad: true},
		{in: "example.com:443", bad: true},
		{in: "192.0.2.7:0", bad: true},
		{in: "192.0.2.7:90-80", bad: true},
		{in: "192.0.2.7:65536", bad: true},
		{in: "192.0.2.7:80/icmp", bad: true},
		{in: "fd00::/8", bad: true},
		{in: "", bad: true},
	}
	for _, tt := range tests {
		got, err := lab.ParseAllow(tt.in)
		if (err != nil) != tt.bad || got != tt.want {
			t.Errorf("ParseAllow(%q) = %+v, %v", tt.in, got, err)
		}
	}
}
