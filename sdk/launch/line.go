package launch

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/wire"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	// exitNews bounds waiting for the reason when a connection breaks: the
	// process is gone a moment before its end is known.
	exitNews = time.Second
	// breath is the longest pause before a call is made again that the plugin
	// answered; one that was lost waits for the next process anyway.
	breath = 200 * time.Millisecond
)

// Line carries calls to a plugin whose process may be replaced: each attempt
// goes to the process that Begin gives for it. A call without a deadline gets
// one from the contract of its method: 10 seconds if it changes nothing, 2
// minutes otherwise, 5 for CreateVM. Within its deadline a call is made again
// as far as the contract allows it: see mostAttempts. A stream is begun again
// only before its first message.
type Line struct {
	// Begin gives a process that is up for one attempt of a call, and may wait
	// for it. An error of it ends the call.
	Begin func(ctx context.Context, method string, attempt int) (*Attempt, error)
}

// Attempt is one try of a call at one process.
type Attempt struct {
	Process *Process
	// End is told what came of it, and the first time counts; lost means that the
	// process gave no answer. What it returns is the caller's error.
	End func(err error, lost bool) error
}

var _ grpc.ClientConnInterface = (*Line)(nil)

// Invoke makes a unary call.
func (l *Line) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c := contractOf(method)
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	ctx = outgoing(ctx)
	for n := 1; ; n++ {
		at, err := l.Begin(ctx, method, n)
		if err != nil {
			return err
		}
		o, err := judge(ctx, at.Process, at.Process.Conn().Invoke(ctx, method, args, reply, opts...))
		err = at.End(err, o == lost)
		if err == nil || !c.again(o, n) || !rest(ctx, o) {
			return err
		}
	}
}

// NewStream begins a streaming call, which must be read to its end or
// cancelled.
func (l *Line) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c := contractOf(method)
	if desc.ClientStreams {
		c.level = unknown // what was sent is not kept
	}
	ctx, cancel := c.bounded(ctx)
	s := &stream{line: l, contract: c, ctx: outgoing(ctx), cancel: cancel, begin: func(ctx context.Context, at *Attempt) (grpc.ClientStream, error) {
		return at.Process.Conn().NewStream(ctx, desc, method, opts...)
	}, method: method}
	if err := s.open(); err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// outgoing gives the call a name, so that logs of host and plugin can be put
// side by side.
func outgoing(ctx context.Context) context.Context {
	c := plugin.CallOf(ctx)
	c.Request = rand.Text()[:10]
	return plugin.Outgoing(plugin.WithCall(ctx, c))
}

// rest pauses before the next attempt, unless the call's time would be over.
func rest(ctx context.Context, o outcome) bool {
	if o == lost {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(breath/2 + mathrand.N(breath/2)):
		return true
	}
}

// judge says which plugin broke the connection, and how it ended, in place of
// what gRPC knows about that.
func judge(ctx context.Context, p *Process, err error) (outcome, error) {
	if err == nil || errors.Is(err, io.EOF) {
		return answered, err
	}
	st, ok := status.FromError(err)
	own := len(st.Details()) > 0 && st.Message() != context.DeadlineExceeded.Error() // words of the plugin
	if !own && (st.Code() == codes.DeadlineExceeded || st.Code() == codes.Canceled && errors.Is(ctx.Err(), context.DeadlineExceeded)) {
		// Or the plugin saw the deadline first, and gave up without an answer.
		return answered, fault.New(fault.Timeout, "plugin %s did not answer in time: %w", p.child.spec.label(), context.DeadlineExceeded)
	}
	switch {
	case ok && st.Code() == codes.Unavailable && len(st.Details()) > 0:
		return unavailable, wire.Error(err)
	case !ok, len(st.Details()) > 0, st.Code() != codes.Unavailable && (st.Code() != codes.Canceled || ctx.Err() != nil):
		return answered, wire.Error(err)
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), exitNews)
	defer cancel()
	out := &fault.Error{Class: fault.Unavailable, Resource: "plugin " + p.child.spec.label(), Err: err}
	select {
	case <-p.Done():
		out.Message = "plugin " + p.child.spec.label() + " was lost during the call: " + p.Exit().how()
	case <-wait.Done():
		out.Message = "plugin " + p.child.spec.label() + " was lost during the call: its connection broke, and its process goes on: " + st.Message()
	}
	return lost, out
}
