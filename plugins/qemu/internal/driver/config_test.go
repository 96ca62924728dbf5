package driver

import (
	"math"
	"strings"
	"testing"
)

// The users of VMs, of memory templates and of spares follow each other.
func TestUsersAreValid(t *testing.T) {
	const last = math.MaxInt32 - 1 // the last valid user
	tests := map[string]struct {
		base, spares uint32
		key, text    string
	}{
		"vms to the last":    {base: last - 1010},
		"vms behind it":      {base: last - 1009, key: "uid_base", text: "vmid_last 1009"},
		"spares to the last": {base: last - 1010 - 11, spares: 1},
		"spares behind it":   {base: last - 1010 - 10, spares: 1, key: "spares", text: "spares 1"},
		"all behind it":      {base: last, spares: 1, key: "uid_base", text: "vmid_last 1009"},
		"overflow":           {base: math.MaxUint32, spares: math.MaxUint32, key: "uid_base", text: "vmid_last 1009"},
		"spares overflow":    {base: 200_000, spares: math.MaxUint32, key: "spares", text: "spares 4294967295"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := Config{VMIDFirst: 1000, VMIDLast: 1009, UIDBase: tt.base, Spares: tt.spares, MemoryTemplates: Auto}
			got := c.Problems()
			if tt.key == "" {
				if len(got) > 0 {
					t.Errorf("problems: %v", got)
				}
				if end := c.UIDBase + c.VMIDLast + 1; tt.spares == 0 && end != last || tt.spares > 0 && c.endUID()-1 != last {
					t.Errorf("users end at %d and %d, want %d", end, c.endUID()-1, last)
				}
				return
			}
			if len(got) != 1 || got[0].Key != tt.key || !strings.Contains(got[0].Text, tt.text) {
				t.Errorf("problems %v, want one of %s", got, tt.key)
			}
		})
	}
}
