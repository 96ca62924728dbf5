package plugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// caller is a driver that tells on whose behalf it is called.
type caller struct {
	toy
	calls chan plugin.Call
}

func (d caller) List(ctx context.Context) ([]string, error) {
	d.calls <- plugin.CallOf(ctx)
	return nil, fault.New(fault.Internal, "no")
}

func TestDriverKnowsTheOperation(t *testing.T) {
	d := caller{calls: make(chan plugin.Call, 1)}
	f := serve(t, func(p *plugin.Plugin) {
		p.Configure = func(context.Context, plugin.HostContext, json.RawMessage, hclog.Logger) (plugin.Instance, error) {
			return plugin.Instance{Service: secrets.Service(d)}, nil
		}
	})
	f.configure(t)
	for _, want := range []plugin.Call{
		{Request: "R", Operation: "op_1", Step: "create-vm", Attempt: 2},
		{Request: "R"},
	} {
		_, _ = f.driver.List(plugin.Outgoing(plugin.WithCall(t.Context(), want)))
		if got := <-d.calls; got != want {
			t.Errorf("the driver knows %+v, want %+v", got, want)
		}
	}
	_, _ = f.driver.List(t.Context())
	if got := <-d.calls; got != (plugin.Call{}) {
		t.Errorf("a call of nobody's is %+v", got)
	}
}

func TestLogNamesTheCall(t *testing.T) {
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true})
	plugin.Log(t.Context(), log).Info("nobody's")
	ctx := plugin.WithCall(t.Context(), plugin.Call{Request: "R", Operation: "op_1", Step: "create-vm", Attempt: 2})
	plugin.Log(ctx, log.Named("x")).Info("vm started", "vmid", 7)
	lines := strings.Split(out.String(), "\n")
	if lines[0] != "[INFO]  nobody's" {
		t.Errorf("line %q", lines[0])
	}
	for _, want := range []string{"x: vm started", "request=R", "operation=op_1", "step=create-vm", "attempt=2", "vmid=7"} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("no %q in %q", want, lines[1])
		}
	}
}
