package plugin

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// Base is the host's side of the base service. Its errors are of sdk/fault.
type Base struct {
	rpc  pluginv1.PluginServiceClient
	conn grpc.ClientConnInterface
}

// NewClient speaks to the plugin behind conn.
func NewClient(conn grpc.ClientConnInterface) Base {
	return Base{pluginv1.NewPluginServiceClient(conn), conn}
}

// Connected is false while the connection is known to be broken.
func (b Base) Connected() bool {
	conn, ok := b.conn.(*grpc.ClientConn)
	return !ok || conn.GetState() == connectivity.Ready
}

// Info is what a plugin says about itself.
type Info struct {
	Name, Version, SDK, Description string
	Kinds                           []Kind // those that this host knows
	Services                        []string
	Confinement                     Confinement
	Tools                           []FoundTool
	Exclusive                       bool
}

// FoundTool is an external program as the plugin found it.
type FoundTool struct {
	Name    string
	Version string // "" when not known
	Path    string // "" when not there
}

// Info asks for facts about the plugin.
func (b Base) Info(ctx context.Context, hostVersion string) (Info, error) {
	in, err := b.rpc.GetInfo(ctx, &pluginv1.GetInfoRequest{HostVersion: hostVersion})
	if err != nil {
		return Info{}, wire.Error(err)
	}
	c := in.GetConfinement()
	out := Info{
		Name: in.GetName(), Version: in.GetVersion(), SDK: in.GetSdk(), Description: in.GetDescription(),
		Services: in.GetServices(), Exclusive: in.GetExclusive(),
		Confinement: Confinement{
			User: c.GetUser(), Capabilities: c.GetCapabilities(), Devices: c.GetDevices(),
			Network: c.GetNetwork(), StartsWorkloads: c.GetStartsWorkloads(),
		},
	}
	for _, name := range in.GetServices() {
		if k := kindOfService(name); k != "" {
			out.Kinds = append(out.Kinds, k)
		}
	}
	for _, t := range in.GetTools() {
		out.Tools = append(out.Tools, FoundTool{Name: t.GetName(), Version: t.GetFoundVersion(), Path: t.GetFoundPath()})
	}
	return out, nil
}

// Schema asks for the schema of the plugin's configuration.
func (b Base) Schema(ctx context.Context) (*Schema, error) {
	in, err := b.rpc.GetSchema(ctx, &pluginv1.GetSchemaRequest{})
	if err != nil {
		return nil, wire.Error(err)
	}
	return schemaFromWire(in.GetSchema()), nil
}

// Validate has the plugin check a configuration without acting on it.
func (b Base) Validate(ctx context.Context, cfg json.RawMessage) ([]Diagnostic, error) {
	in, err := b.rpc.ValidateConfig(ctx, &pluginv1.ValidateConfigRequest{ConfigJson: cfg})
	if err != nil {
		return nil, wire.Error(err)
	}
	return diagnosticsFromWire(in.GetDiagnostics()), nil
}

// Configure makes the plugin ready for the calls of host.Kind, and gives its
// capabilities. Diagnostics with an error among them mean that it is not.
func (b Base) Configure(ctx context.Context, host HostContext, cfg json.RawMessage) ([]string, []Diagnostic, error) {
	in, err := b.rpc.Configure(ctx, &pluginv1.ConfigureRequest{
		Service: host.Kind.ServiceName(), ConfigJson: cfg,
		Instance: host.Instance, HostUuid: host.HostUUID, StateDir: host.StateDir,
	})
	if err != nil {
		return nil, nil, wire.Error(err)
	}
	return in.GetCapabilities(), diagnosticsFromWire(in.GetDiagnostics()), nil
}

// Health asks how the instance is doing. A state that is not known counts as
// Degraded.
func (b Base) Health(ctx context.Context) (Health, error) {
	in, err := b.rpc.Health(ctx, &pluginv1.HealthRequest{})
	if err != nil {
		return Health{}, wire.Error(err)
	}
	out := Health{State: Degraded, Message: in.GetMessage(), Attributes: in.GetAttributes()}
	for state, w := range healthStates {
		if w == in.GetState() {
			out.State = state
		}
	}
	return out, nil
}

// SetLogLevel takes trace, debug, info, warn or error.
func (b Base) SetLogLevel(ctx context.Context, level string) error {
	_, err := b.rpc.SetLogLevel(ctx, &pluginv1.SetLogLevelRequest{Level: level})
	return wire.Error(err)
}

// Drain makes the plugin refuse new calls, waits up to timeout for those that
// run, and returns how many are left.
func (b Base) Drain(ctx context.Context, timeout time.Duration) (int, error) {
	in, err := b.rpc.Drain(ctx, &pluginv1.DrainRequest{Timeout: durationpb.New(timeout)})
	if err != nil {
		return 0, wire.Error(err)
	}
	return int(in.GetUnfinished()), nil
}
