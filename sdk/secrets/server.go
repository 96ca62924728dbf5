package secrets

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/agentlab/agentlab/sdk/internal/proto/secretsv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Service makes a driver ready for plugin.Serve.
func Service(d Driver) plugin.Service {
	return plugin.Service{Kind: plugin.Secrets, Server: &server{driver: d}}
}

type server struct {
	secretsv1.UnimplementedSecretsServiceServer
	driver Driver
}

func (s *server) List(ctx context.Context, _ *secretsv1.ListRequest) (*secretsv1.ListResponse, error) {
	names, err := s.driver.List(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	return &secretsv1.ListResponse{Bundles: names}, nil
}

func (s *server) Open(ctx context.Context, req *secretsv1.OpenRequest) (*secretsv1.OpenResponse, error) {
	b, err := s.driver.Open(ctx, req.GetBundle(), req.GetPurpose())
	if err != nil {
		return nil, wire.Status(err)
	}
	return &secretsv1.OpenResponse{DocumentJson: []byte(b.Document.Reveal()), Version: b.Version}, nil
}

func (s *server) Describe(ctx context.Context, req *secretsv1.DescribeRequest) (*secretsv1.DescribeResponse, error) {
	d, err := s.driver.Describe(ctx, req.GetBundle())
	if err != nil {
		return nil, wire.Status(err)
	}
	out := &secretsv1.DescribeResponse{
		File: d.File, Version: d.Version, Keys: d.Keys, Recipients: d.Recipients, Problems: d.Problems, Warnings: d.Warnings,
	}
	if !d.Updated.IsZero() {
		out.Updated = timestamppb.New(d.Updated)
	}
	return out, nil
}
