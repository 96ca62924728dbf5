package guest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/disk"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// Store is what guests' calls read and write; *state.Store does it.
type Store interface {
	SandboxByAddress(ctx context.Context, addr netip.Addr) (lab.Sandbox, error)
	Exchange(ctx context.Context, e state.Exchange) (lab.Sandbox, error)
	Authenticate(ctx context.Context, addr netip.Addr, credentialHash []byte) (lab.Sandbox, error)
	Hello(ctx context.Context, sandboxID, hostKey, bootID, runner string, now time.Time) error
	WatchSandbox(id string) (wake <-chan struct{}, stop func())
	Job(ctx context.Context, id string) (lab.Job, error)
	JobSeen(ctx context.Context, jobID, stage string, at time.Time) (cancel bool, err error)
	JobReported(ctx context.Context, jobID string, r lab.JobReport) error
	PutArtifact(ctx context.Context, a lab.Artifact) error
	Artifacts(ctx context.Context, jobID string) ([]lab.Artifact, error)
	AppendEvent(ctx context.Context, e lab.Event) error
}

// Opener is the part of secrets.Driver that a payload needs.
type Opener interface {
	Open(ctx context.Context, bundle, purpose string) (secrets.Bundle, error)
}

// Limits bound what guests may leave on the host. Zero fields take the default.
type Limits struct {
	LogBytes  int64 // of a job's log; 64 MiB
	FileBytes int64 // of one artifact; 256 MiB
	JobBytes  int64 // of a job's artifacts together, without the log; 2 GiB
	Files     int   // of a job; 1000
	DiskFloor int64 // bytes left free on the disk; 512 MiB
}

func (l Limits) orDefault() Limits {
	for _, f := range []struct {
		field *int64
		value int64
	}{{&l.LogBytes, 64 << 20}, {&l.FileBytes, 256 << 20}, {&l.JobBytes, 2 << 30}, {&l.DiskFloor, 512 << 20}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.Files == 0 {
		l.Files = 1000
	}
	return l
}

// Config is what the API is built from. Secrets may be nil: then a sandbox
// whose profile names a bundle gets no payload.
type Config struct {
	Store        Store
	Secrets      Opener
	ArtifactsDir string // <ArtifactsDir>/<job>/<path>
	ReposDir     string // <ReposDir>/<id>
	Limits       Limits
	Log          hclog.Logger
}

// Server is the guest API.
type Server struct {
	store     Store
	secrets   Opener
	dir       string // ArtifactsDir
	artifacts *os.Root
	repos     *os.Root
	bounds    atomic.Pointer[Limits] // see limits
	log       hclog.Logger
	callers   callers
	known     redactors
	locks     keyLocks
	ending    chan struct{} // closed when no call shall wait any more
	handler   http.Handler
}

// New returns a server that is ready to Serve. It makes the two directories if
// they are missing and removes what a cut upload left behind.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.ArtifactsDir == "" || cfg.ReposDir == "" {
		return nil, fault.New(fault.Internal, "guest API lacks a part of its configuration")
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	s := &Server{
		store: cfg.Store, secrets: cfg.Secrets, dir: cfg.ArtifactsDir,
		log: cfg.Log.Named("guest"), ending: make(chan struct{}),
	}
	s.SetLimits(cfg.Limits)
	var err error
	if s.artifacts, err = disk.OpenDir(cfg.ArtifactsDir); err != nil {
		return nil, err
	}
	if s.repos, err = disk.OpenDir(cfg.ReposDir); err != nil {
		return nil, errors.Join(err, s.artifacts.Close())
	}
	if err := s.sweepParts(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+guestapi.FetchPath, s.answered(s.fetch))
	mux.Handle("GET "+guestapi.RepoPath, s.credentialed("repo", s.repo))
	mux.Handle("POST "+guestapi.ReportPath, s.credentialed("report", s.report))
	mux.Handle("POST "+guestapi.LogPath, s.credentialed("log", s.appendLog))
	mux.Handle("POST "+guestapi.UploadPath, s.credentialed("upload", s.upload))
	s.handler = s.limited(mux)
	return s, nil
}

// Close releases the directories. Call it when Serve has returned.
func (s *Server) Close() error { return errors.Join(s.artifacts.Close(), s.repos.Close()) }

// SetLimits replaces the limits for what arrives from now on.
func (s *Server) SetLimits(l Limits) {
	l = l.orDefault()
	s.bounds.Store(&l)
}

func (s *Server) limits() Limits { return *s.bounds.Load() }

// Handler is the API without a listener.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen binds addr ("10.77.0.1:8844") also while no interface has it yet, so
// that the daemon may start before the agent bridge exists.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var opt error
		err := raw.Control(func(fd uintptr) {
			opt = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		})
		return errors.Join(err, opt)
	}}
	ln, err := lc.Listen(ctx, "tcp4", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(addr)
		return nil, fault.New(fault.Unavailable, "listen for guests on %s: another program has this port", addr).
			WithHint("see which one: ss -ltnp 'sport = :%s'    end it, or set guest_listen to another port", port)
	case errors.Is(err, syscall.EACCES):
		return nil, fault.New(fault.Denied, "listen for guests on %s: %w", addr, err).WithHint("ports below 1024 are for root")
	case err != nil:
		return nil, fault.New(fault.Unavailable, "listen for guests on %s: %w", addr, err).
			WithHint("guest_listen must be a free port on an IPv4 address")
	}
	return ln, nil
}

// Serve answers guests on ln until ctx ends, then lets calls finish for up to
// five seconds. It closes ln, and is called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Trace}),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		close(s.ending)
		grace, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		if srv.Shutdown(grace) != nil {
			cancel() // what still runs has had its time
			_ = srv.Close()
		}
	})
	err := srv.Serve(newPerSource(ln, connsPerSource))
	if !stop() {
		<-stopped
	}
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fault.New(fault.Internal, "serve guest API: %w", err)
}
