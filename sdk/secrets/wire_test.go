package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/wiretest"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// echo answers with filled values and keeps what it was asked.
type echo struct {
	calls []string
	err   error
}

func (e *echo) List(context.Context) ([]string, error) { return []string{"a", "b"}, e.err }

func (e *echo) Open(_ context.Context, bundle, purpose string) (secrets.Bundle, error) {
	e.calls = append(e.calls, bundle, purpose)
	return wiretest.Filled[secrets.Bundle](nil), e.err
}

func (e *echo) Describe(_ context.Context, bundle string) (secrets.Description, error) {
	e.calls = append(e.calls, bundle)
	return wiretest.Filled[secrets.Description](nil), e.err
}

func client(t *testing.T, d secrets.Driver) *secrets.Client {
	t.Helper()
	service := secrets.Service(d)
	return secrets.NewClient(wiretest.Dial(t, func(r grpc.ServiceRegistrar) { service.Register(r) }))
}

func TestNothingIsLost(t *testing.T) {
	d := &echo{}
	c := client(t, d)
	names, err := c.List(t.Context())
	if err != nil || !cmp.Equal(names, []string{"a", "b"}) {
		t.Errorf("List: %v, %v", names, err)
	}
	want := wiretest.Filled[secrets.Bundle](nil)
	b, err := c.Open(t.Context(), "default", "job 1")
	if err != nil || b != want || b.Document.Reveal() == "" {
		t.Errorf("Open: %v, %v", b, err)
	}
	if strings.Contains(fmt.Sprintf("%+v", b), b.Document.Reveal()) {
		t.Error("an opened bundle prints its secrets")
	}
	desc, err := c.Describe(t.Context(), "other")
	if diff := cmp.Diff(wiretest.Filled[secrets.Description](nil), desc); err != nil || diff != "" {
		t.Errorf("Describe: %v\n%s", err, diff)
	}
	if diff := cmp.Diff([]string{"default", "job 1", "other"}, d.calls); diff != "" {
		t.Error(diff)
	}
}

func TestEveryCallGivesTheDriversError(t *testing.T) {
	c := client(t, &echo{err: fault.New(fault.Denied, "no key fits")})
	_, list := c.List(t.Context())
	_, open := c.Open(t.Context(), "", "")
	_, describe := c.Describe(t.Context(), "")
	for i, err := range []error{list, open, describe} {
		if !errors.Is(err, fault.Denied) {
			t.Errorf("call %d: %v", i, err)
		}
	}
}
