package exposure_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/wiretest"
)

// echo answers with filled values and keeps what it was asked.
type echo struct {
	calls []any
	err   error
}

func (e *echo) Publish(_ context.Context, rule exposure.Rule) (exposure.Rule, error) {
	e.calls = append(e.calls, rule)
	return wiretest.Filled[exposure.Rule](nil), e.err
}

func (e *echo) Unpublish(_ context.Context, owner string, hostPort uint16) error {
	e.calls = append(e.calls, owner, hostPort)
	return e.err
}

func (e *echo) List(_ context.Context, owner string) ([]exposure.Rule, error) {
	e.calls = append(e.calls, owner)
	return wiretest.Filled[[]exposure.Rule](nil), e.err
}

func client(t *testing.T, d exposure.Driver) *exposure.Client {
	t.Helper()
	service := exposure.Service(d)
	return exposure.NewClient(wiretest.Dial(t, func(r grpc.ServiceRegistrar) { service.Register(r) }))
}

func TestNothingIsLost(t *testing.T) {
	d := &echo{}
	c := client(t, d)
	rule := wiretest.Filled[exposure.Rule](nil)
	rule.URL = "" // the driver's to set
	got, err := c.Publish(t.Context(), rule)
	if diff := cmp.Diff(wiretest.Filled[exposure.Rule](nil), got); err != nil || diff != "" {
		t.Errorf("Publish: %v\n%s", err, diff)
	}
	if err := c.Unpublish(t.Context(), "me", 9001); err != nil {
		t.Error(err)
	}
	list, err := c.List(t.Context(), "you")
	if diff := cmp.Diff(wiretest.Filled[[]exposure.Rule](nil), list); err != nil || diff != "" {
		t.Errorf("List: %v\n%s", err, diff)
	}
	if diff := cmp.Diff([]any{rule, "me", uint16(9001), "you"}, d.calls); diff != "" {
		t.Error(diff)
	}
}

func TestEveryCallGivesTheDriversError(t *testing.T) {
	c := client(t, &echo{err: fault.New(fault.Exists, "port is taken")})
	_, publish := c.Publish(t.Context(), exposure.Rule{})
	_, list := c.List(t.Context(), "")
	for i, err := range []error{publish, c.Unpublish(t.Context(), "", 1), list} {
		if !errors.Is(err, fault.Exists) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}
