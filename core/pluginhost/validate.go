package pluginhost

import (
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/sdk/launch"
)

// Validate starts the block's plugin beside whatever runs, asks what it thinks
// of its configuration, and ends it. The plugin is not configured, so it acts
// on nothing, and has no privileges, unless its block says confine = false. The
// diagnostics are the plugin's and those of its schema; an error tells why it
// could not be asked. Of cfg it uses the directories of binaries and sockets.
func Validate(ctx context.Context, cfg Config, block Block, log hclog.Logger) (hcl.Diagnostics, error) {
	i := newInstance(&cfg, block, log.Named(block.Kind).Named(block.Name))
	up, err := begin(ctx, i, block, tighten)
	if err != nil {
		return nil, err
	}
	defer up.abandon(ctx, i)
	err = up.accept(ctx, i)
	if wrong := (*ConfigError)(nil); errors.As(err, &wrong) {
		return wrong.Diagnostics, nil
	}
	if err != nil {
		return nil, err
	}
	diags := up.decoded.diags
	if block.Unconfined {
		return diags, nil
	}
	would, err := launch.GrantOf(up.info.Confinement, cfg.stateDir(block))
	if err != nil {
		return nil, err
	}
	if more := excess(block, up.info.Confinement, would); more != nil {
		diags = append(diags, more)
	}
	return diags, nil
}
