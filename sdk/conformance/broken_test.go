package conformance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
	"github.com/agentlab/agentlab/sdk/internal/proto/secretsv1"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// The test binary is the plugin when it is called like one: its name says what
// is wrong with it.

func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), plugin.BinaryPrefix); ok {
		play(name)
		return
	}
	os.Exit(m.Run())
}

const whole = "whole" // the one without a defect

// defects are ways to break a promise, and the checks that must notice.
var defects = map[string][]string{
	"mute":           {"protocol.version"},
	"other-version":  {"protocol.version"},
	"obliging":       {"protocol.by-hand"},
	"chatty":         {"protocol.handshake", "protocol.stdout"},
	"talkative":      {"protocol.stdout"},
	"in-the-clear":   {"protocol.handshake", "protocol.mutual-tls"},
	"elsewhere":      {"protocol.handshake"},
	"slow":           {"protocol.info", "protocol.health"},
	"nameless":       {"protocol.info"},
	"undocumented":   {"protocol.schema"},
	"fickle":         {"protocol.schema"},
	"ill-typed":      {"protocol.schema"},
	"touchy":         {"protocol.validate"},
	"eager":          {"protocol.unconfigured"},
	"boastful":       {"protocol.configure"},
	"promising":      {"capability.declared"},
	"refusing":       {"protocol.configure"},
	"forgetful":      {"protocol.configure-again"},
	"compliant":      {"protocol.other-kind", "protocol.log-level"},
	"unwell":         {"protocol.health"},
	"plain":          {"protocol.errors"},
	"narrow":         {"protocol.large-message"},
	"brittle":        {"protocol.malformed"},
	"undrained":      {"protocol.drain"},
	"clinging":       {"protocol.shutdown"},
	"stubborn":       {"protocol.terminate"},
	"immortal":       {"protocol.lifeline"},
	"overcapable":    {"capability.undeclared"},
	"telltale":       {"secrets.describe"},
	"unsorted":       {"secrets.list"},
	"vacant":         {"secrets.open"},
	"path-following": {"secrets.names"},
	"inventive":      {"secrets.absent"},
	"changeable":     {"secrets.open"},
}

func TestChecksNoticeDefects(t *testing.T) {
	t.Parallel()
	for name, ids := range defects {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, id := range ids { // one by one: a failed handshake has the others skipped
				report, err := conformance.Plan{Binary: conformance.Binary{Path: binary(t, name)}, Destructive: true, Only: []string{id}}.Run(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(report.Results) != 1 {
					t.Fatalf("%d results, want 1: %+v", len(report.Results), report)
				}
				r := report.Results[0]
				if r.State != conformance.Failed || r.Got == "" || r.Expected == "" || r.Contract == "" {
					t.Errorf("%s: %+v", r.ID, r)
				}
				t.Logf("%s\n got:      %s\n expected: %s", r.ID, r.Got, r.Expected)
			}
		})
	}
}

func TestWholePluginPasses(t *testing.T) {
	t.Parallel()
	for _, destructive := range []bool{true, false} {
		report, err := conformance.Plan{Binary: conformance.Binary{Path: binary(t, whole)}, Destructive: destructive}.Run(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Results {
			if r.State == conformance.Failed {
				t.Errorf("%s: %+v", r.ID, r)
			}
			if r.State == conformance.Skipped && strings.Contains(r.Reason, "--destructive") == destructive {
				t.Logf("%s: %s", r.ID, r.Reason)
			}
		}
	}
}

// Every rule that the broken plugins can break is broken by one.
func TestEveryDefectIsTried(t *testing.T) {
	tried := map[string]bool{"secrets.broken": true} // skipped without such a bundle; plugins/secrets-age has one
	for _, ids := range defects {
		for _, id := range ids {
			tried[id] = true
		}
	}
	for _, r := range conformance.Catalogue() {
		if own := r.Kind == plugin.Secrets || r.Kind == ""; own && r.Level < conformance.LevelResilience && !tried[r.ID] {
			t.Errorf("no defect breaks %s", r.ID)
		}
	}
}

// binary gives this program under the name of a plugin.
func binary(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), plugin.BinaryPrefix+name)
	if os.Link(self, path) == nil {
		return path
	}
	content, err := os.ReadFile(self) // another file system
	if err == nil {
		err = os.WriteFile(path, content, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// play is the plugin with the defect.
func play(defect string) {
	p := described(defect)
	cookie := os.Getenv(plugin.CookieKey) == plugin.CookieValue
	byName := len(os.Args) > 1
	switch {
	case defect == "mute" && byName, defect == "obliging" && !cookie:
		os.Exit(0)
	case defect == "other-version" && byName:
		p.Version = "0.9.0"
	case defect == "chatty" && cookie:
		fmt.Println("starting…")
	case defect == "in-the-clear":
		_ = os.Unsetenv("PLUGIN_CLIENT_CERT")
	case defect == "elsewhere":
		_ = os.Unsetenv("PLUGIN_UNIX_SOCKET_DIR")
	}
	if byName || !cookie {
		plugin.Serve(p)
	}
	serve(p, defect)
}

func described(defect string) plugin.Plugin {
	p := plugin.Plugin{
		Name: defect, Version: "1.0.0", Description: "a plugin with a defect", Kinds: []plugin.Kind{plugin.Secrets},
		Schema: &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
			{Name: "dir", Type: plugin.String, Default: "/tmp", Description: "Where bundles are."},
		}}},
		Configure: func(context.Context, plugin.HostContext, json.RawMessage, hclog.Logger) (plugin.Instance, error) {
			service := secrets.Service(&held{defect})
			switch defect {
			case "boastful":
				service.Capabilities = []string{"levitate", "update"}
			case "refusing":
				return plugin.Instance{}, plugin.Diagnostics{{Summary: "no"}}
			case "overcapable":
				service.Server = overcapable{service.Server.(secretsv1.SecretsServiceServer)}
			}
			return plugin.Instance{Service: service, Health: func(context.Context) plugin.Health {
				if defect == "unwell" {
					return plugin.Health{State: plugin.Degraded}
				}
				return plugin.Health{State: plugin.Ready}
			}}, nil
		},
	}
	if defect == "promising" {
		p.Kinds = []plugin.Kind{plugin.Exposure}
		p.Configure = func(context.Context, plugin.HostContext, json.RawMessage, hclog.Logger) (plugin.Instance, error) {
			service := exposure.Service(nothing{})
			service.Capabilities = []string{"node_info"}
			return plugin.Instance{Service: service}, nil
		}
	}
	first := &p.Schema.Block.Attributes[0]
	switch defect {
	case "undocumented":
		first.Description = ""
	case "fickle":
		first.Default = fmt.Sprint(os.Getpid())
	case "ill-typed":
		first.Default = 4
	case "nameless":
		p.Description = ""
	}
	return p
}

// serve is plugin.Serve with room for defects.
func serve(p plugin.Plugin, defect string) {
	log := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, JSONFormat: true})
	s, err := plugin.NewServer(p, log)
	if err != nil {
		log.Error("cannot be served", "err", err)
		os.Exit(1)
	}
	if defect != "immortal" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	if defect == "stubborn" {
		go ignore()
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: plugin.ProtocolVersion, MagicCookieKey: plugin.CookieKey, MagicCookieValue: plugin.CookieValue,
		},
		Plugins: goplugin.PluginSet{p.Name: &registration{server: s, defect: defect}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			own := s.Options()
			switch defect {
			case "narrow":
				own = own[:len(own)-1]
			case "brittle":
				own = append(own, grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
					os.Exit(3)
					return nil
				}))
			}
			return grpc.NewServer(append(append(opts, grpc.ChainUnaryInterceptor(spoil(defect))), own...)...)
		},
		Logger: log,
	})
	if defect == "clinging" {
		select {}
	}
}

type registration struct {
	goplugin.NetRPCUnsupportedPlugin
	server *plugin.Server
	defect string
}

func (r *registration) GRPCServer(_ *goplugin.GRPCBroker, gs *grpc.Server) error {
	if r.defect == "eager" {
		r.server.Register(early{gs})
		return nil
	}
	r.server.Register(gs)
	return nil
}

// early serves the kind without waiting for Configure.
type early struct{ grpc.ServiceRegistrar }

func (e early) RegisterService(desc *grpc.ServiceDesc, server any) {
	if desc.ServiceName == plugin.Secrets.ServiceName() {
		secrets.Service(&held{}).Register(e.ServiceRegistrar)
		return
	}
	e.ServiceRegistrar.RegisterService(desc, server)
}

func (r *registration) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, io.EOF
}

// spoil does to calls what the defect does.
func spoil(defect string) grpc.UnaryServerInterceptor {
	var configured bool
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		call := filepath.Base(info.FullMethod)
		switch {
		case defect == "talkative" && call == "Configure":
			_, _ = syscall.Write(1, []byte("configured\n"))
		case defect == "slow" && (call == "GetInfo" || call == "Health"):
			time.Sleep(2100 * time.Millisecond)
		case defect == "touchy" && call == "ValidateConfig":
			if r := req.(*pluginv1.ValidateConfigRequest); !json.Valid(r.GetConfigJson()) {
				os.Exit(3)
			}
		case defect == "forgetful" && call == "Configure" && configured:
			return &pluginv1.ConfigureResponse{}, nil
		case defect == "compliant" && (call == "Configure" || call == "SetLogLevel"):
			if call == "Configure" {
				return &pluginv1.ConfigureResponse{}, nil
			}
			return &pluginv1.SetLogLevelResponse{}, nil
		case defect == "undrained" && call == "Drain":
			return &pluginv1.DrainResponse{}, nil
		}
		configured = configured || call == "Configure"
		answer, err := handler(ctx, req)
		if defect == "plain" && err != nil {
			err = status.Error(status.Code(err), err.Error())
		}
		return answer, err
	}
}

// overcapable answers what it does not say that it can.
type overcapable struct{ secretsv1.SecretsServiceServer }

func (overcapable) Update(context.Context, *secretsv1.UpdateRequest) (*secretsv1.UpdateResponse, error) {
	return &secretsv1.UpdateResponse{}, nil
}

// nothing publishes nothing.
type nothing struct{ exposure.Driver }

// held keeps one bundle.
type held struct{ defect string }

const value = "hunter2-hunter2"

func (h *held) List(context.Context) ([]string, error) {
	switch h.defect {
	case "unsorted":
		return []string{"default", "another"}, nil
	case "vacant":
		return nil, nil
	}
	return []string{"default"}, nil
}

func (h *held) find(name string) error {
	if h.defect == "path-following" {
		name = filepath.Base(name)
	}
	if name != "default" && h.defect != "inventive" {
		return fault.New(fault.NotFound, "there is no bundle %q", name)
	}
	return nil
}

func (h *held) Open(_ context.Context, name, _ string) (secrets.Bundle, error) {
	version := "1"
	if h.defect == "changeable" {
		version = fmt.Sprint(time.Now().UnixNano())
	}
	return secrets.Bundle{Document: secret.New(`{"version":1,"env":{"KEY":"` + value + `"}}`), Version: version}, h.find(name)
}

func (h *held) Describe(_ context.Context, name string) (secrets.Description, error) {
	desc := secrets.Description{File: "/bundle", Version: "1", Keys: []string{"env.KEY"}}
	if h.defect == "telltale" {
		desc.Recipients = []string{value}
	}
	return desc, h.find(name)
}

// ignore takes SIGTERM and does nothing.
func ignore() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGTERM)
	for range ch {
		_ = ch
	}
}
