package main

import (
	"context"
	"encoding/json"
	"path/filepath"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/sdk/plugin"
)

type config struct {
	WANInterface     string `json:"wan_interface"`
	TailnetInterface string `json:"tailnet_interface"`
	NFTBinary        string `json:"nft_binary"`
	MaxConnections   int    `json:"max_connections"`
}

func schema() *plugin.Schema {
	return &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
		{
			Name: "wan_interface", Type: plugin.String, Default: "", Example: "vmbr0",
			Description: "The only interface by which mode nat leaves. Empty: every interface but the agent bridge and the tailnet's.",
		},
		{
			Name: "tailnet_interface", Type: plugin.String, Default: "tailscale0",
			Description: "Connections from this interface may reach sandboxes; mode nat never leaves by it. Empty: there is none.",
		},
		{
			Name: "nft_binary", Type: plugin.String, Default: "nft",
			Description: "The nft program: a name to look up in PATH, or an absolute path.",
		},
		{
			Name: "max_connections", Type: plugin.Number, Default: 4096, Min: plugin.Limit(16), Max: plugin.Limit(1 << 20),
			Description: "How many connections of one sandbox the host tracks at a time; further ones are refused.",
		},
	}}}
}

func validate(_ context.Context, raw json.RawMessage) []plugin.Diagnostic {
	_, problems := decode(raw)
	return problems
}

// decode reads a configuration; an attribute that is absent has its default.
func decode(raw json.RawMessage) (driver.Config, plugin.Diagnostics) {
	c := config{TailnetInterface: "tailscale0", NFTBinary: "nft", MaxConnections: 4096}
	if err := plugin.Decode(raw, &c); err != nil {
		return driver.Config{}, plugin.Diagnostics(plugin.Remarks(err))
	}
	var problems plugin.Diagnostics
	for _, a := range []struct{ name, value string }{
		{"wan_interface", c.WANInterface}, {"tailnet_interface", c.TailnetInterface},
	} {
		if a.value != "" && !policy.ValidInterface(a.value) {
			problems = append(problems, plugin.Diagnostic{
				Summary: a.name + " is not an interface name",
				Detail:  "Write 1 to 15 letters, digits, dots, dashes or underscores, beginning with a letter.",
				Path:    plugin.Path{plugin.Attr(a.name)},
			})
		}
	}
	if c.WANInterface != "" && c.WANInterface == c.TailnetInterface {
		problems = append(problems, plugin.Diagnostic{
			Summary: "wan_interface and tailnet_interface are the same",
			Path:    plugin.Path{plugin.Attr("wan_interface")},
		})
	}
	if c.NFTBinary != filepath.Base(c.NFTBinary) && !filepath.IsAbs(c.NFTBinary) || c.NFTBinary == "" {
		problems = append(problems, plugin.Diagnostic{
			Summary: "nft_binary is neither a name nor an absolute path",
			Path:    plugin.Path{plugin.Attr("nft_binary")},
		})
	}
	if c.MaxConnections < 16 || c.MaxConnections > 1<<20 {
		problems = append(problems, plugin.Diagnostic{
			Summary: "max_connections is not between 16 and 1048576",
			Path:    plugin.Path{plugin.Attr("max_connections")},
		})
	}
	return driver.Config{
		WANInterface: c.WANInterface, TailnetInterface: c.TailnetInterface, NFTBinary: c.NFTBinary,
		MaxConnections: c.MaxConnections,
	}, problems
}
