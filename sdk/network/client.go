package network

import (
	"context"

	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/internal/finding"
	"github.com/agentlab/agentlab/sdk/internal/proto/networkv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Client is a Driver behind a connection.
type Client struct {
	rpc networkv1.NetworkServiceClient
}

var _ Driver = (*Client)(nil)

// NewClient speaks to the network plugin behind conn.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{networkv1.NewNetworkServiceClient(conn)}
}

// CheckHost is Driver.CheckHost.
func (c *Client) CheckHost(ctx context.Context, host Host) ([]plugin.Finding, error) {
	r, err := c.rpc.CheckHost(ctx, &networkv1.CheckHostRequest{Host: hostToWire(host)})
	if err != nil {
		return nil, wire.Error(err)
	}
	return finding.FromWire(r.GetFindings()), nil
}

// ApplyHost is Driver.ApplyHost.
func (c *Client) ApplyHost(ctx context.Context, host Host) (ApplyReport, error) {
	r, err := c.rpc.ApplyHost(ctx, &networkv1.ApplyHostRequest{Host: hostToWire(host)})
	if err != nil {
		return ApplyReport{}, wire.Error(err)
	}
	return reportFromWire(r), nil
}

// Attach is Driver.Attach.
func (c *Client) Attach(ctx context.Context, req AttachRequest) (Attachment, error) {
	a, err := c.rpc.Attach(ctx, requestToWire(req))
	if err != nil {
		return Attachment{}, wire.Error(err)
	}
	return attachmentFromWire(a)
}

// Detach is Driver.Detach.
func (c *Client) Detach(ctx context.Context, sandboxID string) error {
	_, err := c.rpc.Detach(ctx, &networkv1.DetachRequest{SandboxId: sandboxID})
	return wire.Error(err)
}

// ListAttachments is Driver.ListAttachments.
func (c *Client) ListAttachments(ctx context.Context, sandboxID string) ([]Attachment, error) {
	r, err := c.rpc.ListAttachments(ctx, &networkv1.ListAttachmentsRequest{SandboxId: sandboxID})
	if err != nil {
		return nil, wire.Error(err)
	}
	var out []Attachment
	for _, w := range r.GetAttachments() {
		a, err := attachmentFromWire(w)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}
