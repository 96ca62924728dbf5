package plugin_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// fixed keeps one bundle.
type fixed struct{ bundle string }

func (f fixed) List(context.Context) ([]string, error) { return []string{f.bundle}, nil }

func (f fixed) Open(context.Context, string, string) (secrets.Bundle, error) {
	return secrets.Bundle{Document: secret.New(`{"version":1}`), Version: "1"}, nil
}

func (f fixed) Describe(context.Context, string) (secrets.Description, error) {
	return secrets.Description{Version: "1"}, nil
}

// A plugin is a main of one call.
func ExampleServe() {
	plugin.Serve(plugin.Plugin{
		Name:        "fixed",
		Version:     "1.0.0",
		Description: "one bundle that never changes",
		Kinds:       []plugin.Kind{plugin.Secrets},
		Schema: &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
			{Name: "bundle", Type: plugin.String, Default: "default", Description: "Name of the bundle."},
		}}},
		Configure: func(_ context.Context, _ plugin.HostContext, cfg json.RawMessage, _ hclog.Logger) (plugin.Instance, error) {
			var c struct {
				Bundle string `json:"bundle"`
			}
			if err := plugin.Decode(cfg, &c); err != nil {
				return plugin.Instance{}, err
			}
			return plugin.Instance{Service: secrets.Service(fixed{c.Bundle})}, nil
		},
	})
}

// A configuration is read strictly: a key without a field means that schema and
// program do not fit together.
func ExampleDecode() {
	var c struct {
		Pool string `json:"pool"`
	}
	fmt.Println(plugin.Decode(json.RawMessage(`{"pool":"fast"}`), &c), c.Pool)
	fmt.Println(plugin.Decode(json.RawMessage(`{"pol":"fast"}`), &c))
	// Output:
	// <nil> fast
	// decode configuration: json: unknown field "pol"
}

// A schema says what a config block may hold, for the host and for people.
func ExampleSchema() {
	s := plugin.Schema{Version: 1, Block: plugin.Block{
		Attributes: []plugin.Attribute{
			{Name: "pool", Type: plugin.String, Required: true, Description: "Where disks are kept."},
			{Name: "copies", Type: plugin.Number, Default: 1, Min: plugin.Limit(1), Max: plugin.Limit(3), Description: "How often each block is kept."},
			{Name: "token", Type: plugin.String, Sensitive: true, Description: "Of the storage's API."},
		},
		Blocks: []plugin.NestedBlock{{
			Name: "node", Nesting: plugin.NestingMap, Label: "name",
			Block: plugin.Block{Attributes: []plugin.Attribute{
				{Name: "addresses", Type: plugin.List(plugin.String), Description: "Where it answers."},
			}},
		}},
	}}
	fmt.Println(len(s.Block.Attributes), "keys,", len(s.Block.Blocks), "kind of block")
	// Output: 3 keys, 1 kind of block
}
