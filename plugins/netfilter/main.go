package main

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/version"
)

func main() {
	plugin.Serve(plugin.Plugin{
		Name:        "netfilter",
		Version:     version.String(),
		Description: "sandboxes on a bridge, with policies that nftables enforces",
		Kinds:       []plugin.Kind{plugin.Network},
		Schema:      schema(),
		Tools:       []plugin.Tool{{Name: "nft"}},
		// CAP_NET_ADMIN also lets any user write below /proc/sys/net.
		Confinement: plugin.Confinement{
			User: plugin.NoUser, Capabilities: []string{"CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"},
			Devices: []string{"/dev/net/tun"}, Network: true,
		},
		Validate:  validate,
		Configure: configure,
	})
}

func configure(_ context.Context, host plugin.HostContext, raw json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
	cfg, problems := decode(raw)
	if len(problems) > 0 {
		return plugin.Instance{}, problems
	}
	cfg.HostUUID, cfg.StateDir = host.HostUUID, host.StateDir
	d := driver.New(cfg, log)
	return plugin.Instance{
		Service: network.Service(d),
		Health: func(ctx context.Context) plugin.Health {
			problem, err := d.Health(ctx)
			switch {
			case err != nil:
				return plugin.Health{State: plugin.Unavailable, Message: err.Error()}
			case problem != "":
				return plugin.Health{State: plugin.Degraded, Message: problem}
			}
			return plugin.Health{State: plugin.Ready}
		},
	}, nil
}
