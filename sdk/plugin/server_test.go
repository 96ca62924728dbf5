package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/wiretest"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// toy hangs in Open until it is told to go on.
type toy struct{ goOn chan struct{} }

func (toy) List(context.Context) ([]string, error) { return nil, nil }

func (d toy) Open(ctx context.Context, _, _ string) (secrets.Bundle, error) {
	select {
	case <-d.goOn:
		return secrets.Bundle{}, nil
	case <-ctx.Done():
		return secrets.Bundle{}, ctx.Err()
	}
}

func (toy) Describe(context.Context, string) (secrets.Description, error) { panic("ouch") }

type fixture struct {
	base   plugin.Base
	driver *secrets.Client
	server *plugin.Server
	toy    toy
	made   int
	closed int
}

func serve(t *testing.T, change func(*plugin.Plugin)) *fixture {
	t.Helper()
	f := &fixture{toy: toy{make(chan struct{})}}
	p := plugin.Plugin{
		Name: "toy", Version: "0.1.0", Description: "For tests.", Kinds: []plugin.Kind{plugin.Secrets, plugin.Network},
		Tools:       []plugin.Tool{{Name: "sh", VersionArgs: []string{"-c", "echo tool 4.5.6-rc1 here; exit 1"}}, {Name: "no-such-tool"}},
		Confinement: plugin.Confinement{User: "u", Capabilities: []string{"CAP_NET_ADMIN"}, Network: true, StartsWorkloads: true},
		Configure: func(context.Context, plugin.HostContext, json.RawMessage, hclog.Logger) (plugin.Instance, error) {
			f.made++
			return plugin.Instance{
				Service: secrets.Service(f.toy),
				Health: func(context.Context) plugin.Health {
					return plugin.Health{State: plugin.Degraded, Message: "disk is slow", Attributes: map[string]string{"a": "b"}}
				},
				Close: func(context.Context) error { f.closed++; return nil },
			}, nil
		},
	}
	if change != nil {
		change(&p)
	}
	server, err := plugin.NewServer(p, hclog.New(&hclog.LoggerOptions{Output: io.Discard}))
	if err != nil {
		t.Fatal(err)
	}
	conn := wiretest.Dial(t, func(r grpc.ServiceRegistrar) { server.Register(r) }, server.Options()...)
	f.server, f.base, f.driver = server, plugin.NewClient(conn), secrets.NewClient(conn)
	return f
}

var host = plugin.HostContext{Kind: plugin.Secrets, Instance: "toy", HostUUID: "u", StateDir: "/s"}

func (f *fixture) configure(t *testing.T) {
	t.Helper()
	if _, remarks, err := f.base.Configure(t.Context(), host, []byte("{}")); err != nil || len(remarks) > 0 {
		t.Fatal(remarks, err)
	}
}

func TestInfo(t *testing.T) {
	got, err := serve(t, nil).base.Info(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	want := plugin.Info{
		Name: "toy", Version: "0.1.0", SDK: "go", Description: "For tests.",
		Kinds:       []plugin.Kind{plugin.Secrets, plugin.Network},
		Services:    []string{"agentlab.secrets.v1.SecretsService", "agentlab.network.v1.NetworkService"},
		Confinement: plugin.Confinement{User: "u", Capabilities: []string{"CAP_NET_ADMIN"}, Network: true, StartsWorkloads: true},
		Tools:       []plugin.FoundTool{{Name: "sh", Version: "4.5.6-rc1", Path: got.Tools[0].Path}, {Name: "no-such-tool"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || got.Tools[0].Path == "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfigureOnce(t *testing.T) {
	f := serve(t, nil)
	ctx := t.Context()
	if _, err := f.driver.List(ctx); !errors.Is(err, fault.Precondition) {
		t.Errorf("call before Configure: %v", err)
	}
	if h, err := f.base.Health(ctx); err != nil || h.State != plugin.Unavailable {
		t.Errorf("health before Configure: %+v, %v", h, err)
	}
	exposure := host
	exposure.Kind = plugin.Exposure
	if _, _, err := f.base.Configure(ctx, exposure, nil); !errors.Is(err, fault.Unsupported) {
		t.Errorf("kind that is not served: %v", err)
	}
	network := host
	network.Kind = plugin.Network
	if _, _, err := f.base.Configure(ctx, network, nil); !errors.Is(err, fault.Internal) {
		t.Errorf("driver of another kind than asked for: %v", err)
	}
	f.made = 0
	f.configure(t)
	f.configure(t)
	if f.made != 1 {
		t.Errorf("configured %d times", f.made)
	}
	if _, _, err := f.base.Configure(ctx, host, []byte(`{"x":1}`)); !errors.Is(err, fault.Precondition) {
		t.Errorf("other configuration: %v", err)
	}
	if _, err := f.driver.List(ctx); err != nil {
		t.Error(err)
	}
	want := plugin.Health{State: plugin.Degraded, Message: "disk is slow", Attributes: map[string]string{"a": "b"}}
	if h, err := f.base.Health(ctx); err != nil || !cmp.Equal(h, want) {
		t.Errorf("health %+v, %v", h, err)
	}
	for range 2 {
		if err := f.server.Close(ctx); err != nil || f.closed != 1 {
			t.Errorf("closed %d times, %v", f.closed, err)
		}
	}
}

// TestSlowHealthIsAnswered: by the check when it heeds its deadline, else in its
// place; it never runs twice at a time.
func TestSlowHealthIsAnswered(t *testing.T) {
	var stubborn atomic.Bool
	var runs atomic.Int64
	goOn := make(chan struct{})
	f := serve(t, func(p *plugin.Plugin) {
		p.Configure = func(context.Context, plugin.HostContext, json.RawMessage, hclog.Logger) (plugin.Instance, error) {
			return plugin.Instance{Service: secrets.Service(toy{}), Health: func(ctx context.Context) plugin.Health {
				runs.Add(1)
				if stubborn.Load() {
					<-goOn
					panic("ouch")
				}
				<-ctx.Done()
				return plugin.Health{State: plugin.Unavailable, Message: "the disk is away"}
			}}, nil
		}
	})
	f.configure(t)
	patient := time.Minute // which is no reason to take longer
	ask := func() (plugin.Health, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		return f.base.Health(ctx)
	}
	began := time.Now()
	h, err := ask()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the answer took %s", took)
	}
	patient = 2 * time.Second
	if err != nil || h.State != plugin.Unavailable || h.Message != "the disk is away" {
		t.Errorf("health %+v, %v", h, err)
	}
	stubborn.Store(true)
	for range 2 {
		if h, err := ask(); err != nil || h.State != plugin.Degraded || !strings.Contains(h.Message, "takes longer than 1.") {
			t.Errorf("health %+v, %v", h, err)
		}
	}
	if n := runs.Load(); n != 2 {
		t.Errorf("the check ran %d times", n)
	}
	time.AfterFunc(100*time.Millisecond, func() { close(goOn) })
	if _, err := ask(); !errors.Is(err, fault.Internal) {
		t.Errorf("a check that panics: %v", err)
	}
}

func TestConfigureRemarks(t *testing.T) {
	remarks := plugin.Diagnostics{
		{Severity: plugin.SeverityWarning, Summary: "old", Detail: "renew"},
		{Severity: plugin.SeverityError, Summary: "bad", Path: plugin.Path{plugin.Attr("a"), plugin.Index(2), plugin.Key("k")}},
	}
	f := serve(t, func(p *plugin.Plugin) {
		p.Configure = func(context.Context, plugin.HostContext, json.RawMessage, hclog.Logger) (plugin.Instance, error) {
			return plugin.Instance{}, fmt.Errorf("check configuration: %w", remarks)
		}
		p.Validate = func(context.Context, json.RawMessage) []plugin.Diagnostic { return remarks[:1] }
	})
	_, got, err := f.base.Configure(t.Context(), host, nil)
	if diff := cmp.Diff([]plugin.Diagnostic(remarks), got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	got, err = f.base.Validate(t.Context(), nil)
	if diff := cmp.Diff([]plugin.Diagnostic(remarks[:1]), got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := f.driver.List(t.Context()); !errors.Is(err, fault.Precondition) {
		t.Errorf("configured in spite of an error: %v", err)
	}
}

func TestPanicIsAnErrorOfTheCall(t *testing.T) {
	f := serve(t, nil)
	f.configure(t)
	if _, err := f.driver.Describe(t.Context(), ""); !errors.Is(err, fault.Internal) || fault.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if left, err := f.base.Drain(t.Context(), time.Second); left != 0 || err != nil {
		t.Errorf("after a panic %d calls count as running, %v", left, err)
	}
}

func TestDrain(t *testing.T) {
	f := serve(t, nil)
	f.configure(t)
	ctx := t.Context()
	result := make(chan error, 1)
	go func() {
		_, err := f.driver.Open(ctx, "", "")
		result <- err
	}()
	time.Sleep(100 * time.Millisecond)
	if left, err := f.base.Drain(ctx, 10*time.Millisecond); left != 1 || err != nil {
		t.Fatalf("%d left, %v", left, err)
	}
	if _, err := f.driver.List(ctx); !errors.Is(err, fault.Unavailable) {
		t.Errorf("new call while draining: %v", err)
	}
	if _, err := f.base.Health(ctx); err != nil {
		t.Errorf("base service while draining: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(f.toy.goOn) })
	if left, err := f.base.Drain(ctx, 10*time.Second); left != 0 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
	if err := <-result; err != nil {
		t.Errorf("running call: %v", err)
	}
}

func TestSetLogLevel(t *testing.T) {
	f := serve(t, nil)
	if err := f.base.SetLogLevel(t.Context(), "debug"); err != nil {
		t.Error(err)
	}
	if err := f.base.SetLogLevel(t.Context(), "loud"); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestUnfitPlugins(t *testing.T) {
	good := func(context.Context, plugin.HostContext, json.RawMessage, hclog.Logger) (plugin.Instance, error) {
		return plugin.Instance{}, nil
	}
	secretsKind := []plugin.Kind{plugin.Secrets}
	for name, p := range map[string]plugin.Plugin{
		"no name":      {Version: "1", Kinds: secretsKind, Configure: good},
		"no version":   {Name: "x", Kinds: secretsKind, Configure: good},
		"no kinds":     {Name: "x", Version: "1", Configure: good},
		"no configure": {Name: "x", Version: "1", Kinds: secretsKind},
		"odd kind":     {Name: "x", Version: "1", Kinds: []plugin.Kind{"toaster"}, Configure: good},
		"no type": {Name: "x", Version: "1", Kinds: secretsKind, Configure: good, Schema: &plugin.Schema{
			Block: plugin.Block{Attributes: []plugin.Attribute{{Name: "a"}}},
		}},
		"bad default": {Name: "x", Version: "1", Kinds: secretsKind, Configure: good, Schema: &plugin.Schema{
			Block: plugin.Block{Attributes: []plugin.Attribute{{Name: "a", Type: plugin.String, Default: func() {}}}},
		}},
	} {
		if _, err := plugin.NewServer(p, hclog.NewNullLogger()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
