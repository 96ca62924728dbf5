package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/plugin"
)

func TestConfigKeys(t *testing.T) {
	low := 1.0
	got := configKeys("", plugin.Block{
		Attributes: []plugin.Attribute{
			{Name: "token", Type: plugin.String, Sensitive: true, Default: "hunter2", Example: "hunter3"},
			{Name: "keys", Type: plugin.List(plugin.String), Required: true, Default: []string{"a"}, Example: []string{"b"}},
			{Name: "limit", Type: plugin.Number, Min: &low, Default: 10},
		},
		Blocks: []plugin.NestedBlock{
			{Name: "node", Nesting: plugin.NestingMap, MinItems: 1, Block: plugin.Block{
				Description: "One.",
				Attributes:  []plugin.Attribute{{Name: "labels", Type: plugin.Map(plugin.String), OneOf: []string{"x"}, Deprecation: "tags"}},
			}},
			{Name: "tls", Nesting: plugin.NestingSingle},
		},
	})
	want := []api.ConfigKey{
		{Name: "keys", Type: "list(string)", Required: true, Default: `["a"]`, Example: `["b"]`},
		{Name: "limit", Type: "number", Min: &low, Default: "10"},
		{Name: "token", Type: "string", Sensitive: true},
		{Name: "node", Type: "blocks with a label", Required: true, Description: "One."},
		{Name: "node.labels", Type: "map(string)", OneOf: []string{"x"}, Deprecated: "tags"},
		{Name: "tls", Type: "block"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
