package pluginhost

import (
	"testing"

	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

func TestExcess(t *testing.T) {
	const plain, because = "add it to allow, or do without the plugin", "add it to allow; it needs root because nobody else may open "
	none := plugin.Confinement{User: plugin.NoUser, Network: true}
	network := []string{"network"}
	tests := []struct {
		name           string
		asks           plugin.Confinement
		grant          launch.Grant
		allow          []string
		summary, hints string
	}{
		{"all of it", none, launch.Grant{Confined: true, UID: 7}, network, "", ""},
		{"root for a device", none, launch.Grant{Confined: true, RootFor: "/dev/net/tun"}, network, "root", because + "/dev/net/tun, which chmod 0666 /dev/net/tun changes"},
		{"root for a disk", none, launch.Grant{Confined: true, RootFor: "/dev/sda"}, network, "root", because + "/dev/sda"},
		{"root that is allowed", none, launch.Grant{Confined: true, RootFor: "/dev/net/tun"}, []string{"root"}, "network", plain},
		{"an account", plugin.Confinement{User: "postgres"}, launch.Grant{Confined: true, UID: 7}, network, "user:postgres", plain},
		{"an account that is allowed", plugin.Confinement{User: "postgres"}, launch.Grant{Confined: true, UID: 7}, []string{"user:postgres"}, "", ""},
	}
	for _, tt := range tests {
		summary, hints := "", ""
		if d := excess(Block{Allow: tt.allow}, tt.asks, tt.grant); d != nil {
			summary, hints = d.Summary, d.Detail
		}
		if tt.summary != "" {
			tt.summary = "the plugin asks for " + tt.summary + ", which its block does not allow"
		}
		if summary != tt.summary || hints != tt.hints {
			t.Errorf("%s: %q, %q", tt.name, summary, hints)
		}
	}
}
