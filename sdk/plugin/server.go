package plugin

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// Server serves a Plugin over gRPC. Serve uses it; tests may, to do without a
// process.
type Server struct {
	plugin Plugin
	schema *pluginv1.Schema
	log    hclog.Logger
	gate   *gate

	configuring sync.Mutex // held through one Configure

	mu sync.Mutex
	// mu guards:
	request  *pluginv1.ConfigureRequest // nil until configured
	answer   *pluginv1.ConfigureResponse
	instance Instance
	closed   bool
	running  *checkup // nil while none runs
}

// NewServer checks that the plugin is fit to be served.
func NewServer(p Plugin, log hclog.Logger) (*Server, error) {
	if p.Name == "" || p.Version == "" || p.Configure == nil || len(p.Kinds) == 0 {
		return nil, fault.New(fault.Internal, "plugin %q needs Name, Version, Kinds and Configure", p.Name)
	}
	for _, k := range p.Kinds {
		if k.ServiceName() == "" {
			return nil, fault.New(fault.Internal, "plugin %q: there is no kind %q", p.Name, k)
		}
	}
	schema, err := schemaToWire(p.Schema)
	if err != nil {
		return nil, fault.New(fault.Internal, "plugin %q: schema: %w", p.Name, err)
	}
	return &Server{plugin: p, schema: schema, log: log, gate: newGate()}, nil
}

// Options are what a grpc.Server needs to serve s.
func (s *Server) Options() []grpc.ServerOption {
	return append(interceptors(s.gate, s.log), grpc.MaxRecvMsgSize(MaxMessage))
}

// Register serves the base service and the plugin's kinds on r. The calls of a
// kind work after Configure.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServiceServer(r, &base{Server: s})
	for _, k := range s.plugin.Kinds {
		r.RegisterService(late(services[k], func() (any, error) { return s.service(k) }), nil)
	}
}

// Close closes the instance, once.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	closing := s.instance.Close
	if s.closed {
		closing = nil
	}
	s.closed = true
	s.mu.Unlock()
	if closing == nil {
		return nil
	}
	return closing(ctx)
}

// service is the driver that Configure made.
func (s *Server) service(k Kind) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.request == nil {
		return nil, wire.Status(fault.New(fault.Precondition, "plugin %s is not configured", s.plugin.Name))
	}
	if s.instance.Service.Kind != k {
		return nil, wire.Status(fault.New(fault.Precondition,
			"plugin %s serves %s in this process, not %s", s.plugin.Name, s.instance.Service.Kind, k))
	}
	return s.instance.Service.Server, nil
}

// late is desc with handlers that look the driver up at each call, because
// services must be registered before the driver exists.
func late(desc *grpc.ServiceDesc, lookup func() (any, error)) *grpc.ServiceDesc {
	out := *desc
	out.Methods = slices.Clone(desc.Methods)
	for i, m := range desc.Methods {
		out.Methods[i].Handler = func(_ any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
			srv, err := lookup()
			if err != nil {
				return nil, err
			}
			return m.Handler(srv, ctx, dec, in)
		}
	}
	out.Streams = slices.Clone(desc.Streams)
	for i, m := range desc.Streams {
		out.Streams[i].Handler = func(_ any, stream grpc.ServerStream) error {
			srv, err := lookup()
			if err != nil {
				return err
			}
			return m.Handler(srv, stream)
		}
	}
	return &out
}
