package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/disk"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/scheduler"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// Store is what the API reads; *state.Store does it.
type Store interface {
	FindSandbox(ctx context.Context, ref string) (lab.Sandbox, error)
	Sandbox(ctx context.Context, id string) (lab.Sandbox, error)
	Sandboxes(ctx context.Context, f state.SandboxFilter) ([]lab.Sandbox, error)
	Job(ctx context.Context, id string) (lab.Job, error)
	Jobs(ctx context.Context, f state.JobFilter) ([]lab.Job, error)
	Operation(ctx context.Context, id string) (lab.Operation, error)
	Operations(ctx context.Context, f state.OperationFilter) ([]lab.Operation, error)
	Artifacts(ctx context.Context, jobID string) ([]lab.Artifact, error)
	Counts(ctx context.Context) (state.Counts, error)
	Events(ctx context.Context, f state.EventFilter) ([]lab.Event, error)
	EventBefore(ctx context.Context, t time.Time) (int64, error)
	Watch() (wake <-chan struct{}, stop func())
	WatchSandbox(id string) (wake <-chan struct{}, stop func())
	PutRepo(ctx context.Context, r state.Repo) error
	Repo(ctx context.Context, id string) (state.Repo, error)
	GiveUpRepo(ctx context.Context, id string) error
	DeleteRepo(ctx context.Context, id string) error
}

// Scheduler takes on work; *scheduler.Scheduler does it.
type Scheduler interface {
	CreateSandbox(ctx context.Context, r scheduler.SandboxRequest) (lab.Operation, lab.Sandbox, error)
	RunJob(ctx context.Context, r scheduler.JobRequest) (lab.Operation, lab.Sandbox, lab.Job, error)
	CheckJob(ctx context.Context, r scheduler.JobRequest) error
	DestroySandbox(ctx context.Context, sandboxID string) (lab.Operation, error)
	CancelJob(ctx context.Context, jobID string) error
	CancelOperation(ctx context.Context, id string) (lab.Operation, error)
	Steps(kind lab.OperationKind) []string // in their order
}

// Profiles are those loaded now; they may change between calls.
type Profiles interface {
	Names() []string                       // usable ones, sorted
	Spec(profile string) (lab.Spec, error) // fault.NotFound
	Problems() []string                    // one line per profile that was skipped
}

// Templates is the part of hypervisor.Driver that validation asks.
type Templates interface {
	ListTemplates(ctx context.Context) ([]hypervisor.Template, error)
}

// Bundles is the part of secrets.Driver that validation asks.
type Bundles interface {
	List(ctx context.Context) ([]string, error)
	Describe(ctx context.Context, bundle string) (secrets.Description, error)
}

// defaultFloor is what uploads leave free unless the configuration says more.
const defaultFloor = 512 << 20

// Config is what the API is built from. All fields are required but
// RestartPlugin, Problems, CheckPlugins, Checks, Console, Secrets, DiskFloor and
// Log.
type Config struct {
	Store     Store
	Scheduler Scheduler
	Profiles  Profiles
	Plugins   func() []api.Plugin                             // answers from memory
	Plugin    func(kindOrName string) (api.PluginInfo, error) // the same
	// CheckPlugins is Plugins, but asks them; nil: they are not asked.
	CheckPlugins func(ctx context.Context) []api.Plugin
	// RestartPlugin replaces a plugin's process.
	RestartPlugin func(ctx context.Context, kindOrName string) (api.PluginInfo, error)
	Problems      func() []string // of the daemon itself, one line each
	Hypervisor    Templates
	// Checks has the plugins look at the host, each within the context's time.
	Checks func(ctx context.Context) []api.Finding
	// Console gives what a guest printed, without its secrets; nil: there is none.
	Console      func(ctx context.Context, sb lab.Sandbox) ([]byte, error)
	Secrets      Bundles // nil: profiles cannot name a bundle
	ArtifactsDir string  // <ArtifactsDir>/<job>/<path>
	ReposDir     string  // <ReposDir>/<id>
	DiskFloor    int64   // bytes that uploads leave free; 0 is 512 MiB
	Host         func() api.Host
	Dial         func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) // to sandboxes
	Log          hclog.Logger
}

// Server is the API. Serve it on as many listeners as needed.
type Server struct {
	cfg       Config
	log       hclog.Logger
	started   time.Time
	routes    []route
	registry  huma.Registry
	handler   http.Handler
	artifacts *os.Root
	repos     *os.Root
	templates templateCache
	closing   chan struct{} // closed when streams shall end
	// bodyTimeout bounds how long a small body may take to arrive.
	bodyTimeout time.Duration
	closeOnce   sync.Once
	streams     sync.WaitGroup // connections taken over from net/http
}

// New returns a server that is ready to Serve. It makes the two directories if
// they are missing and removes what a cut upload left in ReposDir.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Scheduler == nil || cfg.Profiles == nil || cfg.Plugins == nil || cfg.Plugin == nil ||
		cfg.Hypervisor == nil || cfg.Dial == nil || cfg.ArtifactsDir == "" || cfg.ReposDir == "" {
		return nil, fault.New(fault.Internal, "control API lacks a part of its configuration")
	}
	if cfg.DiskFloor == 0 {
		cfg.DiskFloor = defaultFloor
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	s := &Server{
		cfg: cfg, log: cfg.Log.Named("control"), started: time.Now(),
		closing: make(chan struct{}), bodyTimeout: 30 * time.Second,
	}
	var err error
	if s.artifacts, err = disk.OpenDir(cfg.ArtifactsDir); err != nil {
		return nil, err
	}
	if s.repos, err = disk.OpenDir(cfg.ReposDir); err != nil {
		return nil, errors.Join(err, s.artifacts.Close())
	}
	sweepUploads(s.repos, s.log)
	s.routes = s.table()
	s.registry = newRegistry(s.routes)
	s.handler = s.mux()
	return s, nil
}

// Handler is the API without a listener.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve answers on ln until ctx ends, then ends streams and lets other calls
// finish for up to five seconds. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.endStreams()
		grace, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		if srv.Shutdown(grace) != nil {
			cancel() // what still runs has had its time
			_ = srv.Close()
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-stopped
	}
	s.streams.Wait()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fault.New(fault.Internal, "serve control API: %w", err)
}

func (s *Server) endStreams() { s.closeOnce.Do(func() { close(s.closing) }) }

// Close releases the directories. Call it when every Serve has returned.
func (s *Server) Close() error {
	s.endStreams()
	return errors.Join(s.artifacts.Close(), s.repos.Close())
}
