package network

import (
	"context"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/finding"
	"github.com/agentlab/agentlab/sdk/internal/proto/networkv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Service makes a driver ready for plugin.Serve.
func Service(d Driver) plugin.Service {
	return plugin.Service{Kind: plugin.Network, Server: &server{driver: d}}
}

type server struct {
	networkv1.UnimplementedNetworkServiceServer
	driver Driver
}

func (s *server) CheckHost(ctx context.Context, req *networkv1.CheckHostRequest) (*networkv1.CheckHostResponse, error) {
	host, err := hostFromWire(req.GetHost())
	if err != nil {
		return nil, wire.Status(err)
	}
	findings, err := s.driver.CheckHost(ctx, host)
	if err != nil {
		return nil, wire.Status(err)
	}
	return &networkv1.CheckHostResponse{Findings: finding.ToWire(findings)}, nil
}

func (s *server) ApplyHost(ctx context.Context, req *networkv1.ApplyHostRequest) (*networkv1.ApplyHostResponse, error) {
	host, err := hostFromWire(req.GetHost())
	if err != nil {
		return nil, wire.Status(err)
	}
	report, err := s.driver.ApplyHost(ctx, host)
	if err != nil {
		return nil, wire.Status(err)
	}
	return reportToWire(report), nil
}

func (s *server) Attach(ctx context.Context, req *networkv1.AttachRequest) (*networkv1.Attachment, error) {
	in, err := requestFromWire(req)
	if err != nil {
		return nil, wire.Status(err)
	}
	if in.Mode == "" { // a policy that is not understood must not be guessed
		return nil, wire.Status(fault.New(fault.Invalid, "there is no network mode %s", req.GetMode()))
	}
	a, err := s.driver.Attach(ctx, in)
	if err != nil {
		return nil, wire.Status(err)
	}
	return attachmentToWire(a), nil
}

func (s *server) Detach(ctx context.Context, req *networkv1.DetachRequest) (*networkv1.DetachResponse, error) {
	if err := s.driver.Detach(ctx, req.GetSandboxId()); err != nil {
		return nil, wire.Status(err)
	}
	return &networkv1.DetachResponse{}, nil
}

func (s *server) ListAttachments(ctx context.Context, req *networkv1.ListAttachmentsRequest) (*networkv1.ListAttachmentsResponse, error) {
	list, err := s.driver.ListAttachments(ctx, req.GetSandboxId())
	if err != nil {
		return nil, wire.Status(err)
	}
	out := &networkv1.ListAttachmentsResponse{}
	for _, a := range list {
		out.Attachments = append(out.Attachments, attachmentToWire(a))
	}
	return out, nil
}
