package network_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/wiretest"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

var choices = map[string]string{"Level": "missing", "Mode": "allowlist"}

// echo answers with filled values and keeps what it was asked.
type echo struct {
	calls []any
	err   error
}

func (e *echo) keep(args ...any) error {
	e.calls = append(e.calls, args...)
	return e.err
}

func (e *echo) CheckHost(_ context.Context, host network.Host) ([]plugin.Finding, error) {
	return wiretest.Filled[[]plugin.Finding](choices), e.keep(host)
}

func (e *echo) ApplyHost(_ context.Context, host network.Host) (network.ApplyReport, error) {
	return wiretest.Filled[network.ApplyReport](choices), e.keep(host)
}

func (e *echo) Attach(_ context.Context, req network.AttachRequest) (network.Attachment, error) {
	return wiretest.Filled[network.Attachment](choices), e.keep(req)
}

func (e *echo) Detach(_ context.Context, sandboxID string) error { return e.keep(sandboxID) }

func (e *echo) ListAttachments(_ context.Context, sandboxID string) ([]network.Attachment, error) {
	return wiretest.Filled[[]network.Attachment](choices), e.keep(sandboxID)
}

func client(t *testing.T, d network.Driver) *network.Client {
	t.Helper()
	service := network.Service(d)
	return network.NewClient(wiretest.Dial(t, func(r grpc.ServiceRegistrar) { service.Register(r) }))
}

func same(t *testing.T, what string, got any, err error, want any) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestNothingIsLost(t *testing.T) {
	d := &echo{}
	c := client(t, d)
	ctx := t.Context()
	host := wiretest.Filled[network.Host](choices)
	req := wiretest.Filled[network.AttachRequest](choices)

	findings, err := c.CheckHost(ctx, host)
	same(t, "CheckHost", findings, err, wiretest.Filled[[]plugin.Finding](choices))
	report, err := c.ApplyHost(ctx, host)
	same(t, "ApplyHost", report, err, wiretest.Filled[network.ApplyReport](choices))
	attachment, err := c.Attach(ctx, req)
	same(t, "Attach", attachment, err, wiretest.Filled[network.Attachment](choices))
	same(t, "Detach", nil, c.Detach(ctx, "sbx_1"), nil)
	list, err := c.ListAttachments(ctx, "sbx_2")
	same(t, "ListAttachments", list, err, wiretest.Filled[[]network.Attachment](choices))
	same(t, "requests", d.calls, nil, []any{host, host, req, "sbx_1", "sbx_2"})
}

func TestEveryCallGivesTheDriversError(t *testing.T) {
	c := client(t, &echo{err: fault.New(fault.Conflict, "newer generation in force")})
	ctx := t.Context()
	_, check := c.CheckHost(ctx, network.Host{})
	_, apply := c.ApplyHost(ctx, network.Host{})
	_, attach := c.Attach(ctx, network.AttachRequest{Mode: network.ModeOff})
	_, list := c.ListAttachments(ctx, "")
	for i, err := range []error{check, apply, attach, c.Detach(ctx, ""), list} {
		if !errors.Is(err, fault.Conflict) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestAPolicyIsNeverGuessed(t *testing.T) {
	d := &echo{}
	_, err := client(t, d).Attach(t.Context(), network.AttachRequest{Mode: "open"})
	if !errors.Is(err, fault.Invalid) || len(d.calls) > 0 {
		t.Errorf("unknown mode: %v, driver got %v", err, d.calls)
	}
}
