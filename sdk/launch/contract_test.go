package launch

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// TestAttemptsFollowTheContract: how often a call is made that always comes to
// the same.
func TestAttemptsFollowTheContract(t *testing.T) {
	const (
		get    = "/agentlab.hypervisor.v1.HypervisorService/GetVM"
		create = "/agentlab.hypervisor.v1.HypervisorService/CreateVM"
		exec   = "/agentlab.hypervisor.v1.HypervisorService/Exec" // has no idempotency_level
		odd    = "/nobody.Knows/This"
	)
	for _, tt := range []struct {
		method string
		came   outcome
		want   int
	}{
		{get, lost, 2},
		{get, unavailable, 3},
		{get, answered, 1},
		{create, lost, 2},
		{create, unavailable, 1},
		{create, answered, 1},
		{exec, lost, 1},
		{exec, unavailable, 1},
		{odd, lost, 1},
		{odd, unavailable, 1},
	} {
		n := 1
		for contractOf(tt.method).again(tt.came, n) {
			n++
		}
		if n != tt.want {
			t.Errorf("%s that came to %d is made %d times, want %d", tt.method, tt.came, n, tt.want)
		}
	}
}

func TestJudge(t *testing.T) {
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	left, leave := context.WithCancel(t.Context())
	leave()
	p := &Process{child: &child{spec: Spec{Kind: "secrets", Name: "toy"}}}
	for name, tt := range map[string]struct {
		ctx   context.Context
		err   error
		want  outcome
		class fault.Class
	}{
		"well":                    {t.Context(), nil, answered, ""},
		"plugin's error":          {t.Context(), wire.Status(fault.New(fault.NotFound, "x")), answered, fault.NotFound},
		"plugin's unavailable":    {t.Context(), wire.Status(fault.New(fault.Unavailable, "x")), unavailable, fault.Unavailable},
		"deadline":                {over, status.Error(codes.DeadlineExceeded, "x"), answered, fault.Timeout},
		"deadline, seen by both":  {over, status.Error(codes.Canceled, "RST_STREAM"), answered, fault.Timeout},
		"deadline, plugin first":  {t.Context(), wire.Status(context.DeadlineExceeded), answered, fault.Timeout},
		"caller left":             {left, status.Error(codes.Canceled, "x"), answered, fault.Unavailable},
		"a panic told by details": {t.Context(), wire.Status(fault.New(fault.Internal, "x")), answered, fault.Internal},
	} {
		got, err := judge(tt.ctx, p, tt.err)
		if got != tt.want || fault.ClassOf(err) != tt.class {
			t.Errorf("%s: %d, %s (%v), want %d, %s", name, got, fault.ClassOf(err), err, tt.want, tt.class)
		}
		if late := "plugin secrets toy did not answer in time"; tt.class == fault.Timeout && !strings.Contains(err.Error(), late) {
			t.Errorf("%s: %v, want %q", name, err, late)
		}
	}
}
