package secrets

import (
	"context"

	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/internal/proto/secretsv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Client is a Driver behind a connection.
type Client struct {
	rpc secretsv1.SecretsServiceClient
}

var _ Driver = (*Client)(nil)

// NewClient speaks to the secrets plugin behind conn.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{secretsv1.NewSecretsServiceClient(conn)}
}

// List is Driver.List.
func (c *Client) List(ctx context.Context) ([]string, error) {
	r, err := c.rpc.List(ctx, &secretsv1.ListRequest{})
	if err != nil {
		return nil, wire.Error(err)
	}
	return r.GetBundles(), nil
}

// Open is Driver.Open.
func (c *Client) Open(ctx context.Context, bundle, purpose string) (Bundle, error) {
	r, err := c.rpc.Open(ctx, &secretsv1.OpenRequest{Bundle: bundle, Purpose: purpose})
	if err != nil {
		return Bundle{}, wire.Error(err)
	}
	return Bundle{Document: secret.New(string(r.GetDocumentJson())), Version: r.GetVersion()}, nil
}

// Describe is Driver.Describe.
func (c *Client) Describe(ctx context.Context, bundle string) (Description, error) {
	r, err := c.rpc.Describe(ctx, &secretsv1.DescribeRequest{Bundle: bundle})
	if err != nil {
		return Description{}, wire.Error(err)
	}
	out := Description{
		File: r.GetFile(), Version: r.GetVersion(), Keys: r.GetKeys(),
		Recipients: r.GetRecipients(), Problems: r.GetProblems(), Warnings: r.GetWarnings(),
	}
	if r.GetUpdated().IsValid() {
		out.Updated = r.GetUpdated().AsTime()
	}
	return out, nil
}
