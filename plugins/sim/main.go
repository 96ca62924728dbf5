package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/sim/internal/driver"
	"github.com/agentlab/agentlab/plugins/sim/internal/guest"
	"github.com/agentlab/agentlab/plugins/sim/internal/misbehave"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
	"github.com/agentlab/agentlab/sdk/version"
)

func main() {
	if os.Getenv(plugin.CookieKey) == plugin.CookieValue {
		misbehave.AtStart()
	}
	plugin.Serve(sim())
}

func sim() plugin.Plugin {
	return plugin.Plugin{
		Name:        "sim",
		Version:     version.String(),
		Description: "a simulated host for tests and load",
		Kinds:       plugin.Kinds(),
		Schema: &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
			{
				Name: "world", Type: plugin.String, Required: true, Example: "/tmp/world",
				Description: "Directory of the simulated world, the same for every kind. Made when it is missing.",
			},
			{
				Name: "heartbeat", Type: plugin.String, Default: "500ms", Example: "2s",
				Description: "Time between the signs of life of a simulated guest with a job.",
			},
		}}},
		Confinement: plugin.Confinement{Network: true},
		Validate:    validate,
		Configure:   configure,
	}
}

type config struct {
	World     string `json:"world"`
	Heartbeat string `json:"heartbeat"`
}

func validate(_ context.Context, raw json.RawMessage) []plugin.Diagnostic {
	var cfg config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Remarks(err)
	}
	var out []plugin.Diagnostic
	if !filepath.IsAbs(cfg.World) {
		out = append(out, plugin.Diagnostic{Summary: "world must be an absolute path", Path: plugin.Path{plugin.Attr("world")}})
	}
	if d, err := time.ParseDuration(cfg.Heartbeat); err != nil || d <= 0 {
		out = append(out, plugin.Diagnostic{
			Summary: "heartbeat must be a duration", Detail: `Write it as "500ms" or "2s".`,
			Path: plugin.Path{plugin.Attr("heartbeat")},
		})
	}
	return out
}

func configure(_ context.Context, host plugin.HostContext, raw json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
	var cfg config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Instance{}, err
	}
	if wrong := validate(context.Background(), raw); len(wrong) > 0 {
		return plugin.Instance{}, plugin.Diagnostics(wrong)
	}
	w, err := world.Open(cfg.World, misbehave.Actor(os.Getppid()))
	if err != nil {
		return plugin.Instance{}, fmt.Errorf("open world: %w", err)
	}
	var out plugin.Instance
	switch host.Kind {
	case plugin.Hypervisor:
		out, err = hypervisorInstance(w, cfg, log)
	case plugin.Network:
		out.Service = network.Service(driver.NewNetwork(w))
	case plugin.Secrets:
		out.Service = secrets.Service(driver.NewSecrets(w))
	case plugin.Exposure:
		out.Service = exposure.Service(driver.NewExposure(w))
	default:
		err = fault.New(fault.Unsupported, "kind %q is not simulated", host.Kind)
	}
	out.Health = func(ctx context.Context) plugin.Health {
		if err := w.Reach(ctx, "health", string(host.Kind)); err != nil {
			return plugin.Health{State: plugin.Degraded, Message: err.Error()}
		}
		return plugin.Health{State: plugin.Ready}
	}
	return out, err
}

// hypervisorInstance also plays the guests, for as long as it is not closed.
func hypervisorInstance(w *world.World, cfg config, log hclog.Logger) (plugin.Instance, error) {
	every, err := time.ParseDuration(cfg.Heartbeat)
	if err != nil {
		return plugin.Instance{}, fault.New(fault.Invalid, "heartbeat is not a duration")
	}
	crowd := guest.NewCrowd(guest.Config{World: w, Heartbeat: every, Log: log.Named("guest")})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- crowd.Run(ctx) }()
	return plugin.Instance{
		Service: hypervisor.Service(driver.NewHypervisor(w, crowd.Wake)),
		Close: func(ctx context.Context) error {
			stop()
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("stop the guests: %w", ctx.Err())
			}
		},
	}, nil
}
