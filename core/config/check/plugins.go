package check

import (
	"context"
	"os"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/version"
)

// AskPlugins adds what the plugins say about their config blocks. It leaves out
// those of which an error is known already.
func (r *Report) AskPlugins(ctx context.Context) {
	if r.Config == nil {
		return
	}
	blocks := slices.DeleteFunc(slices.Clone(r.Config.Plugins), func(b config.PluginBlock) bool {
		return slices.ContainsFunc(r.Diagnostics, func(d *hcl.Diagnostic) bool {
			return d.Severity == hcl.DiagError && d.Subject != nil && *d.Subject == b.Range
		})
	})
	r.Asked = blocks
	c := &checker{cfg: r.Config, diags: append(r.Diagnostics, Plugins(ctx, r.Config, blocks)...)}
	r.Diagnostics = c.sorted()
}

// Plugins starts each of the plugins for a moment, unconfigured and beside any
// that run, and asks it about its config block.
func Plugins(ctx context.Context, cfg *config.Config, blocks []config.PluginBlock) config.Diagnostics {
	c := &checker{cfg: cfg}
	run, err := os.MkdirTemp("/tmp", "agentlab") // whatever TMPDIR says: sockets need a short path
	if err != nil {
		c.fail(config.WholeFile(cfg.File), "", "plugins cannot be asked: %v", err)
		return c.diags
	}
	defer func() { _ = os.RemoveAll(run) }()
	host := pluginhost.Config{PluginDir: cfg.PluginDir, RunDir: run, HostVersion: version.String()}
	for _, b := range blocks {
		diags, err := pluginhost.Validate(ctx, host, Block(b), hclog.NewNullLogger())
		if err != nil {
			c.fail(b.Range, fault.HintOf(err), "%v", err)
		}
		c.diags = append(c.diags, diags...)
	}
	return c.diags
}

// Block is the block as the daemon runs it.
func Block(b config.PluginBlock) pluginhost.Block {
	return pluginhost.Block{
		Kind: b.Kind, Name: b.Name, Path: b.Path, SHA256: b.SHA256, Words: b.Words(), Body: b.Body, Range: b.Range,
		Unconfined: b.Unconfined, Allow: b.Allow,
	}
}
