package exposure

import (
	"context"

	"github.com/agentlab/agentlab/sdk/internal/proto/exposurev1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Service makes a driver ready for plugin.Serve.
func Service(d Driver) plugin.Service {
	return plugin.Service{Kind: plugin.Exposure, Server: &server{driver: d}}
}

type server struct {
	exposurev1.UnimplementedExposureServiceServer
	driver Driver
}

func (s *server) Publish(ctx context.Context, req *exposurev1.PublishRequest) (*exposurev1.Published, error) {
	rule, err := ruleFromWire(req)
	if err != nil {
		return nil, wire.Status(err)
	}
	out, err := s.driver.Publish(ctx, rule)
	if err != nil {
		return nil, wire.Status(err)
	}
	return publishedToWire(out), nil
}

func (s *server) Unpublish(ctx context.Context, req *exposurev1.UnpublishRequest) (*exposurev1.UnpublishResponse, error) {
	port, err := wire.Port(req.GetHostPort())
	if err != nil {
		return nil, wire.Status(err)
	}
	if err := s.driver.Unpublish(ctx, req.GetOwner(), port); err != nil {
		return nil, wire.Status(err)
	}
	return &exposurev1.UnpublishResponse{}, nil
}

func (s *server) ListPublished(ctx context.Context, req *exposurev1.ListPublishedRequest) (*exposurev1.ListPublishedResponse, error) {
	rules, err := s.driver.List(ctx, req.GetOwner())
	if err != nil {
		return nil, wire.Status(err)
	}
	out := &exposurev1.ListPublishedResponse{}
	for _, r := range rules {
		out.Rules = append(out.Rules, publishedToWire(r))
	}
	return out, nil
}
