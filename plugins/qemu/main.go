package main

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/qemu/internal/driver"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/version"
)

func main() { plugin.Serve(qemu()) }

func qemu() plugin.Plugin {
	return plugin.Plugin{
		Name:        "qemu",
		Version:     version.String(),
		Description: "VMs as plain QEMU programs, each with a user of its own",
		Kinds:       []plugin.Kind{plugin.Hypervisor},
		Schema:      schema(),
		Tools: []plugin.Tool{
			{Name: "qemu-system-x86_64"},
			{Name: "qemu-img"},
		},
		// It sets users, opens taps of the namespace it is in, and what it
		// starts must not inherit limits of its own.
		Confinement: plugin.Confinement{
			Capabilities: []string{
				"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_ADMIN",
				"CAP_SETGID", "CAP_SETUID", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE",
			},
			Network: true, StartsWorkloads: true,
		},
		Validate:  validate,
		Configure: configure,
	}
}

func validate(_ context.Context, raw json.RawMessage) []plugin.Diagnostic {
	var cfg driver.Config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Remarks(err)
	}
	var out []plugin.Diagnostic
	for _, p := range cfg.Problems() {
		out = append(out, plugin.Diagnostic{Summary: p.Text, Path: plugin.Path{plugin.Attr(p.Key)}})
	}
	return out
}

func configure(ctx context.Context, host plugin.HostContext, raw json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
	var cfg driver.Config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Instance{}, err
	}
	d, err := driver.New(cfg, host.StateDir, log)
	if err != nil {
		return plugin.Instance{}, err
	}
	if err := d.Tidy(ctx); err != nil {
		// VMs boot without memory templates, and what makes those and spares tidies first.
		log.Warn("what earlier calls have left was not tidied", "err", err)
	}
	if err := d.RestoreSpares(ctx); err != nil {
		log.Warn("no spare guests before the next start from memory", "err", err)
	}
	health := func(ctx context.Context) plugin.Health {
		if why := d.Health(ctx); why != "" {
			return plugin.Health{State: plugin.Degraded, Message: why}
		}
		return plugin.Health{State: plugin.Ready}
	}
	return plugin.Instance{Service: hypervisor.Service(d), Health: health, Close: d.Close}, nil
}
