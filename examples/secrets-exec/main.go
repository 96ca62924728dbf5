package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// version is set by the linker.
var version = "0.1.0"

func main() { plugin.Serve(describe()) }

func describe() plugin.Plugin {
	return plugin.Plugin{
		Name:        "secrets-exec",
		Version:     version,
		Description: "secrets bundles that a program prints",
		Kinds:       []plugin.Kind{plugin.Secrets},
		Schema: &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
			{
				Name: "command", Type: plugin.List(plugin.String), Required: true,
				Description: "Program, as an absolute path, and its arguments. It finds the bundle's name in `AGENTLAB_BUNDLE`. No shell is involved.",
				Example:     []string{"/usr/local/bin/vault-bundle", "--format", "json"},
			},
			{
				Name: "bundles", Type: plugin.List(plugin.String), Default: []string{"default"},
				Description: "Names of the bundles that there are.",
			},
			{
				Name: "timeout_seconds", Type: plugin.Number, Default: 10, Min: plugin.Limit(1), Max: plugin.Limit(120),
				Description: "How long the program may take.",
			},
		}}},
		Confinement: plugin.Confinement{Network: true}, // whom the program asks is not known
		Validate:    validate,
		Configure:   configure,
	}
}

type config struct {
	Command        []string `json:"command"`
	Bundles        []string `json:"bundles"`
	TimeoutSeconds float64  `json:"timeout_seconds"`
}

func validate(_ context.Context, raw json.RawMessage) []plugin.Diagnostic {
	var cfg config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Remarks(err)
	}
	var out []plugin.Diagnostic
	if len(cfg.Command) == 0 || !filepath.IsAbs(cfg.Command[0]) {
		out = append(out, plugin.Diagnostic{
			Summary: "command must begin with the absolute path of a program",
			Path:    plugin.Path{plugin.Attr("command")},
		})
	}
	for i, name := range cfg.Bundles {
		if !bundleName.MatchString(name) {
			out = append(out, plugin.Diagnostic{
				Summary: "a bundle's name has letters, digits, dots, dashes and underscores",
				Path:    plugin.Path{plugin.Attr("bundles"), plugin.Index(i)},
			})
		}
	}
	return out
}

func configure(ctx context.Context, _ plugin.HostContext, raw json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
	if wrong := validate(ctx, raw); len(wrong) > 0 {
		return plugin.Instance{}, plugin.Diagnostics(wrong)
	}
	var cfg config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Instance{}, err
	}
	d := &driver{
		command: cfg.Command, bundles: cfg.Bundles,
		timeout: time.Duration(cfg.TimeoutSeconds * float64(time.Second)), log: log,
	}
	return plugin.Instance{Service: secrets.Service(d), Health: d.health}, nil
}
