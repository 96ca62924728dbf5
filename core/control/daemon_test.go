package control_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/control"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/scheduler"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

var _ control.Store = (*state.Store)(nil)

// daemon is the control API on a real socket over a real store and a real
// scheduler that takes work on and never does it: tests move the rows.
type daemon struct {
	t         testing.TB
	store     *state.Store
	config    control.Config
	server    *control.Server
	world     *world
	artifacts string
	repos     string
	socket    string
	c         *client.Client
	log       *syncBuffer
	stop      func() error
}

// world is what plugins and profiles answer.
type world struct {
	mu        sync.Mutex
	specs     map[string]lab.Spec
	templates []hypervisor.Template
	err       error         // of ListTemplates
	block     chan struct{} // ListTemplates waits for it when not nil
	asked     int
	bundle    secrets.Description // of any bundle
	target    string              // where Dial goes
	dialled   netip.AddrPort
}

func (w *world) Names() []string {
	names := []string{}
	for n := range w.specs {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (w *world) Spec(name string) (lab.Spec, error) {
	s, ok := w.specs[name]
	if !ok {
		return s, fault.New(fault.NotFound, "no profile %q", name)
	}
	return s, nil
}

func (w *world) Problems() []string { return []string{"bad.hcl:3: unknown key"} }

func (w *world) ListTemplates(ctx context.Context) ([]hypervisor.Template, error) {
	if w.block != nil {
		select {
		case <-w.block:
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, "plugin qemu: %w", ctx.Err())
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.templates, w.err
}

func (w *world) List(context.Context) ([]string, error) { return []string{"default"}, nil }

func (w *world) Describe(context.Context, string) (secrets.Description, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.bundle
	out.Keys = []string{"version"}
	return out, nil
}

// fitHost is a hypervisor as far as requests ask it.
type fitHost struct{ hypervisor.Driver }

func (fitHost) CheckHost(context.Context) (hypervisor.HostReport, error) {
	return hypervisor.HostReport{VMIDFirst: 1000, VMIDLast: 1999, InterfacePattern: "tap%di0"}, nil
}

func (w *world) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.dialled = to
	w.mu.Unlock()
	var d net.Dialer
	return d.DialContext(ctx, "tcp", w.target)
}

func newWorld() *world {
	good := lab.Spec{
		Template: "debian-12", Cores: 2, MemoryMB: 512, NetworkMode: "nat", Bundle: "default",
		SSHUser: "agent", OnJobEnd: "destroy", TTL: time.Hour, ProvisionTimeout: time.Minute,
	}
	vary := func(f func(*lab.Spec)) lab.Spec {
		s := good
		f(&s)
		return s
	}
	return &world{
		specs: map[string]lab.Spec{
			"good":        good,
			"by-vmid":     vary(func(s *lab.Spec) { s.Template = "9000" }),
			"no-template": vary(func(s *lab.Spec) { s.Template = "windows" }),
			"broken":      vary(func(s *lab.Spec) { s.Template = "broken" }),
			"no-bundle":   vary(func(s *lab.Spec) { s.Bundle = "other" }),
			"no-network":  vary(func(s *lab.Spec) { s.NetworkMode = "bridge" }),
			"bad-allow":   vary(func(s *lab.Spec) { s.NetworkAllow = []string{"0.0.0.0/0"} }),
			"claude":      vary(func(s *lab.Spec) { s.AgentCommand = "claude" }),
			"codex":       vary(func(s *lab.Spec) { s.AgentCommand = "codex" }),
		},
		templates: []hypervisor.Template{
			{VMID: 9000, Name: "debian-12", Agents: []string{"claude"}},
			{VMID: 9001, Name: "broken", Findings: []plugin.Finding{{ID: "seed", Level: plugin.LevelMissing, Message: "no seed drive", Fix: "build it again"}}},
		},
	}
}

func newDaemon(t testing.TB) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &daemon{
		t: t, world: newWorld(), artifacts: filepath.Join(dir, "artifacts"), repos: filepath.Join(dir, "repos"),
		socket: filepath.Join(dir, "s"), log: &syncBuffer{},
	}
	d.store, err = state.Open(t.Context(), filepath.Join(dir, "agentlab.db"))
	d.must(err)
	d.config = control.Config{
		Store: d.store,
		Scheduler: scheduler.New(scheduler.Config{
			Store: d.store, Hypervisor: fitHost{}, HostUUID: "uuid", Subnet: netip.MustParsePrefix("10.77.0.0/16"),
		}),
		Profiles: d.world,
		CheckPlugins: func(context.Context) []api.Plugin {
			return []api.Plugin{{Kind: "hypervisor", Name: "qemu", State: "degraded"}}
		},
		Plugins: func() []api.Plugin {
			return []api.Plugin{{Kind: "hypervisor", Name: "qemu", State: "backoff", Message: "exited"}}
		},
		Plugin: func(name string) (api.PluginInfo, error) {
			if name != "qemu" {
				return api.PluginInfo{}, fault.New(fault.NotFound, "no plugin %q", name)
			}
			return api.PluginInfo{Plugin: api.Plugin{Kind: "hypervisor", Name: "qemu"}}, nil
		},
		Hypervisor: d.world, Secrets: d.world, ArtifactsDir: d.artifacts, ReposDir: d.repos, DiskFloor: 1,
		Host: func() api.Host { return api.Host{Version: "1.2.3", HostUUID: "uuid", AgentSubnet: "10.77.0.0/16"} }, Dial: d.world.dial,
		Log: hclog.New(&hclog.LoggerOptions{Output: d.log, Level: hclog.Debug}),
	}
	d.server, err = control.New(d.config)
	d.must(err)
	d.serve()
	d.c, err = client.New(client.Options{Socket: d.socket, Timeout: 10 * time.Second})
	d.must(err)
	t.Cleanup(func() {
		d.c.Close()
		if err := errors.Join(d.stop(), d.server.Close(), d.store.Close()); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *daemon) serve() {
	d.t.Helper()
	ln, err := net.Listen("unix", d.socket)
	d.must(err)
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan error, 1)
	go func() { done <- d.server.Serve(ctx, ln) }()
	d.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

// restart serves again after stop.
func (d *daemon) restart() {
	d.t.Helper()
	d.must(d.server.Close())
	var err error
	d.server, err = control.New(d.config)
	d.must(err)
	d.serve()
}

func (d *daemon) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// raw is an HTTP client on the socket, for what the typed client never sends.
func (d *daemon) raw(method, path, body string, header ...string) *http.Response {
	d.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", d.socket)
	}}
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://x"+path, bytes.NewBufferString(body))
	d.must(err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Do(req)
	d.must(err)
	d.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// job makes a job through the API.
func (d *daemon) job() api.Accepted {
	d.t.Helper()
	a, err := d.c.CreateJob(d.t.Context(), api.JobCreate{Profile: "good", Task: "work", RepoURL: "https://git.example/x.git"})
	d.must(err)
	return a
}

// reserve gives the sandbox a VMID and an address.
func (d *daemon) reserve(id string) lab.Sandbox {
	d.t.Helper()
	sb, err := d.store.Reserve(d.t.Context(), id, state.Range{
		First: 1000, Last: 1009, Subnet: netip.MustParsePrefix("10.77.0.0/16"),
		HostAddr: netip.MustParseAddr("10.77.0.1"), InterfacePattern: "tap%di0",
	})
	d.must(err)
	return sb
}

// ready brings the sandbox to READY.
func (d *daemon) ready(id string) {
	d.t.Helper()
	for _, to := range []lab.SandboxState{lab.SandboxProvisioning, lab.SandboxBooting, lab.SandboxReady} {
		d.sandboxTo(id, to)
	}
}

func (d *daemon) sandboxTo(id string, to lab.SandboxState) {
	d.t.Helper()
	d.must(d.store.Commit(d.t.Context(), state.Commit{Sandboxes: []state.SandboxChange{{ID: id, To: to}}}))
}

func (d *daemon) jobTo(id string, to lab.JobState, code int) {
	d.t.Helper()
	d.must(d.store.Commit(d.t.Context(), state.Commit{Jobs: []state.JobChange{{ID: id, To: to, ExitCode: &code}}}))
}

func (d *daemon) endOperation(id string) {
	d.t.Helper()
	was, err := d.store.Operation(d.t.Context(), id)
	d.must(err)
	for _, to := range []lab.OperationState{lab.OpRunning, lab.OpDone} {
		next := was
		next.State = to
		if to.Ended() {
			next.EndedAt = time.Now()
		}
		d.must(d.store.Commit(d.t.Context(), state.Commit{Operations: []state.OperationChange{{Was: was, Now: next}}}))
		was = next
	}
}

// artifact puts a file and its row.
func (d *daemon) artifact(job, path, content string) {
	d.t.Helper()
	d.file(job, path, content)
	d.must(d.store.PutArtifact(d.t.Context(), lab.Artifact{JobID: job, Path: path, Size: int64(len(content)), SHA256: "00ff"}))
}

// file appends to a file of a job.
func (d *daemon) file(job, path, content string) {
	d.t.Helper()
	name := filepath.Join(d.artifacts, job, path)
	d.must(os.MkdirAll(filepath.Dir(name), 0o700))
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	d.must(err)
	_, err = f.WriteString(content)
	d.must(errors.Join(err, f.Close()))
}

func wantClass(t testing.TB, what string, err error, want fault.Class) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v (%s), want %s", what, err, fault.ClassOf(err), want)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
