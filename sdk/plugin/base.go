package plugin

import (
	"context"
	"errors"
	"slices"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// base is the gRPC server of the base service.
type base struct {
	pluginv1.UnimplementedPluginServiceServer
	*Server
}

func (b *base) GetInfo(ctx context.Context, _ *pluginv1.GetInfoRequest) (*pluginv1.GetInfoResponse, error) {
	p := b.plugin
	out := &pluginv1.GetInfoResponse{
		Name: p.Name, Version: p.Version, Sdk: "go", Description: p.Description,
		Confinement: &pluginv1.Confinement{
			User: p.Confinement.User, Capabilities: p.Confinement.Capabilities, Devices: p.Confinement.Devices,
			Network: p.Confinement.Network, StartsWorkloads: p.Confinement.StartsWorkloads,
		},
		Tools: findTools(ctx, p.Tools), Exclusive: p.Exclusive,
	}
	for _, k := range p.Kinds {
		out.Services = append(out.Services, k.ServiceName())
	}
	return out, nil
}

func (b *base) GetSchema(context.Context, *pluginv1.GetSchemaRequest) (*pluginv1.GetSchemaResponse, error) {
	return &pluginv1.GetSchemaResponse{Schema: b.schema}, nil
}

func (b *base) ValidateConfig(ctx context.Context, req *pluginv1.ValidateConfigRequest) (*pluginv1.ValidateConfigResponse, error) {
	out := &pluginv1.ValidateConfigResponse{}
	if b.plugin.Validate != nil {
		out.Diagnostics = diagnosticsToWire(b.plugin.Validate(ctx, req.GetConfigJson()))
	}
	return out, nil
}

func (b *base) Configure(ctx context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	b.configuring.Lock()
	defer b.configuring.Unlock()
	if b.request != nil { // written under configuring only
		if proto.Equal(req, b.request) {
			return b.answer, nil
		}
		return nil, wire.Status(fault.New(fault.Precondition, "plugin is already configured differently"))
	}
	kind := kindOfService(req.GetService())
	if !slices.Contains(b.plugin.Kinds, kind) {
		return nil, wire.Status(fault.New(fault.Unsupported, "plugin %s does not serve %s", b.plugin.Name, req.GetService()))
	}
	host := HostContext{Kind: kind, Instance: req.GetInstance(), HostUUID: req.GetHostUuid(), StateDir: req.GetStateDir()}
	instance, err := b.plugin.Configure(ctx, host, req.GetConfigJson(), b.log)
	answer := &pluginv1.ConfigureResponse{Capabilities: instance.Service.Capabilities}
	var remarks Diagnostics
	switch {
	case errors.As(err, &remarks):
		answer.Diagnostics = diagnosticsToWire(remarks)
		if failed(remarks) {
			return answer, nil
		}
	case err != nil:
		return nil, wire.Status(err)
	}
	if instance.Service.Kind != kind || instance.Service.Server == nil {
		return nil, wire.Status(fault.New(fault.Internal, "plugin %s made no driver of kind %s", b.plugin.Name, kind))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.request, b.answer, b.instance = req, answer, instance
	return answer, nil
}

func (b *base) Health(ctx context.Context, _ *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	b.mu.Lock()
	configured, check := b.request != nil, b.instance.Health
	b.mu.Unlock()
	h := Health{State: Ready}
	var err error
	switch {
	case !configured:
		h = Health{State: Unavailable, Message: "not configured"}
	case check != nil:
		h, err = b.checkup(ctx, check)
	}
	if err != nil {
		return nil, err
	}
	return &pluginv1.HealthResponse{State: healthStates[h.State], Message: h.Message, Attributes: h.Attributes}, nil
}

func (b *base) SetLogLevel(_ context.Context, req *pluginv1.SetLogLevelRequest) (*pluginv1.SetLogLevelResponse, error) {
	level := hclog.LevelFromString(req.GetLevel())
	if level == hclog.NoLevel {
		return nil, wire.Status(fault.New(fault.Invalid, "there is no log level %q", req.GetLevel()).
			WithHint("use trace, debug, info, warn or error"))
	}
	b.log.SetLevel(level)
	return &pluginv1.SetLogLevelResponse{}, nil
}

func (b *base) Drain(ctx context.Context, req *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	return &pluginv1.DrainResponse{Unfinished: b.gate.drain(ctx, req.GetTimeout().AsDuration())}, nil
}
