package hypervisor_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/internal/wiretest"
)

var choices = map[string]string{"Level": "warning", "Power": "paused", "Way": "memory"}

// echo answers with filled values and keeps what it was asked.
type echo struct {
	calls []any
	err   error
}

func (e *echo) keep(args ...any) error {
	e.calls = append(e.calls, args...)
	return e.err
}

func (e *echo) CheckHost(context.Context) (hypervisor.HostReport, error) {
	return wiretest.Filled[hypervisor.HostReport](choices), e.keep()
}

func (e *echo) ListTemplates(context.Context) ([]hypervisor.Template, error) {
	return wiretest.Filled[[]hypervisor.Template](choices), e.keep()
}

func (e *echo) ListVMs(_ context.Context, ownerPrefix string, foreign bool) ([]hypervisor.VM, error) {
	return wiretest.Filled[[]hypervisor.VM](choices), e.keep(ownerPrefix, foreign)
}

func (e *echo) GetVM(_ context.Context, ref hypervisor.Ref) (hypervisor.VM, error) {
	return wiretest.Filled[hypervisor.VM](choices), e.keep(ref)
}

func (e *echo) GetStats(_ context.Context, vmids []uint32) (map[uint32]hypervisor.Stats, error) {
	return map[uint32]hypervisor.Stats{7: wiretest.Filled[hypervisor.Stats](choices)}, e.keep(vmids)
}

func (e *echo) CreateVM(_ context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress)) (hypervisor.VM, error) {
	var wg sync.WaitGroup
	for range 20 { // any goroutine may report
		wg.Go(func() { progress(wiretest.Filled[hypervisor.Progress](choices)) })
	}
	wg.Wait()
	return wiretest.Filled[hypervisor.VM](choices), e.keep(req)
}

func (e *echo) SetPower(_ context.Context, ref hypervisor.Ref, target hypervisor.Power, grace time.Duration) (hypervisor.VM, error) {
	return wiretest.Filled[hypervisor.VM](choices), e.keep(ref, target, grace)
}

func (e *echo) DestroyVM(_ context.Context, ref hypervisor.Ref) error { return e.keep(ref) }

// talking is echo with every optional interface.
type talking struct{ echo }

func (t *talking) Console(_ context.Context, ref hypervisor.Ref) ([]byte, error) {
	return []byte("login: "), t.keep(ref)
}

func (t *talking) WarmTemplate(
	_ context.Context, req hypervisor.WarmRequest, progress func(hypervisor.Progress),
) (hypervisor.Template, error) {
	progress(wiretest.Filled[hypervisor.Progress](choices))
	return wiretest.Filled[hypervisor.Template](choices), t.keep(req)
}

func client(t *testing.T, d hypervisor.Driver) *hypervisor.Client {
	t.Helper()
	service := hypervisor.Service(d)
	return hypervisor.NewClient(wiretest.Dial(t, func(r grpc.ServiceRegistrar) { service.Register(r) }))
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
	d := &talking{}
	c := client(t, d)
	ctx := t.Context()
	ref := wiretest.Filled[hypervisor.Ref](choices)
	req := wiretest.Filled[hypervisor.CreateRequest](choices)
	vm := wiretest.Filled[hypervisor.VM](choices)

	report, err := c.CheckHost(ctx)
	same(t, "CheckHost", report, err, wiretest.Filled[hypervisor.HostReport](choices))
	templates, err := c.ListTemplates(ctx)
	same(t, "ListTemplates", templates, err, wiretest.Filled[[]hypervisor.Template](choices))
	vms, err := c.ListVMs(ctx, "agentlab:x/", true)
	same(t, "ListVMs", vms, err, wiretest.Filled[[]hypervisor.VM](choices))
	got, err := c.GetVM(ctx, ref)
	same(t, "GetVM", got, err, vm)
	stats, err := c.GetStats(ctx, []uint32{7, 8})
	same(t, "GetStats", stats, err, map[uint32]hypervisor.Stats{7: wiretest.Filled[hypervisor.Stats](choices)})
	var progress []hypervisor.Progress
	got, err = c.CreateVM(ctx, req, func(p hypervisor.Progress) { progress = append(progress, p) })
	same(t, "CreateVM", got, err, vm)
	if len(progress) != 20 || progress[0] != wiretest.Filled[hypervisor.Progress](choices) {
		t.Errorf("progress arrived %d times: %+v", len(progress), progress)
	}
	got, err = c.SetPower(ctx, ref, hypervisor.PowerShutdown, 1500*time.Millisecond)
	same(t, "SetPower", got, err, vm)
	same(t, "DestroyVM", nil, c.DestroyVM(ctx, ref), nil)
	console, err := c.Console(ctx, ref)
	same(t, "Console", console, err, []byte("login: "))
	warm := wiretest.Filled[hypervisor.WarmRequest](choices)
	progress = nil
	template, err := c.WarmTemplate(ctx, warm, func(p hypervisor.Progress) { progress = append(progress, p) })
	same(t, "WarmTemplate", template, err, wiretest.Filled[hypervisor.Template](choices))
	if len(progress) != 1 || progress[0] != wiretest.Filled[hypervisor.Progress](choices) {
		t.Errorf("progress of WarmTemplate: %+v", progress)
	}

	same(t, "requests", d.calls, nil, []any{
		"agentlab:x/", true, ref, []uint32{7, 8}, req, ref, hypervisor.PowerShutdown, 1500 * time.Millisecond, ref, ref, warm,
	})
}

func TestEveryCallGivesTheDriversError(t *testing.T) {
	c := client(t, &talking{echo{err: fault.New(fault.Locked, "busy").WithHolder("backup")}})
	ctx := t.Context()
	_, check := c.CheckHost(ctx)
	_, templates := c.ListTemplates(ctx)
	_, vms := c.ListVMs(ctx, "", false)
	_, get := c.GetVM(ctx, hypervisor.Ref{})
	_, stats := c.GetStats(ctx, nil)
	_, create := c.CreateVM(ctx, hypervisor.CreateRequest{}, nil)
	_, power := c.SetPower(ctx, hypervisor.Ref{}, hypervisor.PowerOn, 0)
	_, console := c.Console(ctx, hypervisor.Ref{})
	_, warm := c.WarmTemplate(ctx, hypervisor.WarmRequest{}, nil)
	for i, err := range []error{check, templates, vms, get, stats, create, power, c.DestroyVM(ctx, hypervisor.Ref{}), console, warm} {
		var e *fault.Error
		if !errors.As(err, &e) || !errors.Is(err, fault.Locked) || e.Holder != "backup" {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

func TestWhatADriverLacks(t *testing.T) {
	c := client(t, &echo{})
	if _, err := c.Console(t.Context(), hypervisor.Ref{}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("console: %v", err)
	}
	if _, err := c.WarmTemplate(t.Context(), hypervisor.WarmRequest{}, nil); !errors.Is(err, fault.Unsupported) {
		t.Errorf("warm: %v", err)
	}
	if _, err := c.SetPower(t.Context(), hypervisor.Ref{}, "sideways", 0); !errors.Is(err, fault.Invalid) {
		t.Errorf("unknown power: %v", err)
	}
	if caps := hypervisor.Service(&echo{}).Capabilities; len(caps) != 0 {
		t.Errorf("capabilities %v", caps)
	}
	all := []string{"snapshot", "volumes", "volume_snapshot", "volume_clone", "guest_exec", "console", "memory_template"}
	if caps := hypervisor.Service(&talking{}).Capabilities; !cmp.Equal(caps, all) {
		t.Errorf("capabilities %v", caps)
	}
}
