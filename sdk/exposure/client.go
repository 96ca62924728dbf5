package exposure

import (
	"context"

	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/internal/proto/exposurev1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// Client is a Driver behind a connection.
type Client struct {
	rpc exposurev1.ExposureServiceClient
}

var _ Driver = (*Client)(nil)

// NewClient speaks to the exposure plugin behind conn.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{exposurev1.NewExposureServiceClient(conn)}
}

// Publish is Driver.Publish.
func (c *Client) Publish(ctx context.Context, rule Rule) (Rule, error) {
	r, err := c.rpc.Publish(ctx, ruleToWire(rule))
	if err != nil {
		return Rule{}, wire.Error(err)
	}
	return publishedFromWire(r)
}

// Unpublish is Driver.Unpublish.
func (c *Client) Unpublish(ctx context.Context, owner string, hostPort uint16) error {
	_, err := c.rpc.Unpublish(ctx, &exposurev1.UnpublishRequest{Owner: owner, HostPort: uint32(hostPort)})
	return wire.Error(err)
}

// List is Driver.List.
func (c *Client) List(ctx context.Context, owner string) ([]Rule, error) {
	r, err := c.rpc.ListPublished(ctx, &exposurev1.ListPublishedRequest{Owner: owner})
	if err != nil {
		return nil, wire.Error(err)
	}
	var out []Rule
	for _, w := range r.GetRules() {
		rule, err := publishedFromWire(w)
		if err != nil {
			return nil, err
		}
		out = append(out, rule)
	}
	return out, nil
}
