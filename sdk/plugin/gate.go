package plugin

import (
	"context"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// gate counts the calls of the kind that run and refuses new ones once it
// drains.
type gate struct {
	mu sync.Mutex
	// mu guards:
	running  uint32
	draining bool
	idle     chan struct{} // closed when draining and nothing runs
}

func newGate() *gate { return &gate{idle: make(chan struct{})} }

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return fault.New(fault.Unavailable, "plugin is draining")
	}
	g.running++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	if g.draining && g.running == 0 {
		close(g.idle)
	}
}

// drain refuses new calls, waits for those that run, at most for the timeout,
// and returns how many are left.
func (g *gate) drain(ctx context.Context, timeout time.Duration) uint32 {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g.mu.Lock()
	if !g.draining {
		g.draining = true
		if g.running == 0 {
			close(g.idle)
		}
	}
	g.mu.Unlock()
	select {
	case <-g.idle:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// guarded reports whether the method belongs to a kind and not to the base
// service, to health or to go-plugin.
func guarded(fullMethod string) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return kindOfService(name) != ""
}

// interceptors count calls of the kind, turn a panic into an error of the one
// call, and give errors their wire form.
func interceptors(g *gate, log hclog.Logger) []grpc.ServerOption {
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		ctx = incoming(ctx)
		err = guard(ctx, g, log, info.FullMethod, func() error {
			resp, err = handler(ctx, req)
			return err
		})
		return resp, err
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx := incoming(ss.Context())
		return guard(ctx, g, log, info.FullMethod, func() error { return handler(srv, &contextStream{ss, ctx}) })
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
}

// contextStream is a stream with a context of its own.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is the call's.
func (s *contextStream) Context() context.Context { return s.ctx }

func guard(ctx context.Context, g *gate, log hclog.Logger, method string, call func() error) (err error) {
	if guarded(method) {
		if err := g.enter(); err != nil {
			return wire.Status(err)
		}
		defer g.leave()
		defer logFailure(ctx, log, method, time.Now(), &err)
	}
	defer func() {
		if r := recover(); r != nil {
			Log(ctx, log).Error("call panicked", "method", method, "panic", r, "stack", string(debug.Stack()))
			err = wire.Status(fault.New(fault.Internal, "%s panicked: %v", method, r).
				WithHint("this is a defect of the plugin; its log has the stack"))
		}
	}()
	return call()
}

// logFailure lets the log of the plugin be read beside that of its host.
func logFailure(ctx context.Context, log hclog.Logger, method string, began time.Time, err *error) {
	if *err != nil && log.IsDebug() {
		Log(ctx, log).Debug("call failed", "method", method, "took", time.Since(began), "err", *err)
	}
}
