package launch

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Deadlines for calls that come without one.
const (
	readTimeout   = 10 * time.Second
	changeTimeout = 2 * time.Minute
	createTimeout = 5 * time.Minute
)

// exitNews bounds waiting for the reason when a connection breaks: the process
// is gone a moment before its end is known.
const exitNews = time.Second

// Line carries calls to a plugin whose process may be replaced: each call goes
// to the process that Target gives for it. A call without a deadline gets one
// from the contract of its method: 10 seconds if it changes nothing, 2 minutes
// otherwise, 5 for CreateVM.
type Line struct {
	Label string // "hypervisor qemu", for errors
	// Target gives a process that is up, and may wait for it.
	Target func(ctx context.Context) (*Process, error)
}

var _ grpc.ClientConnInterface = (*Line)(nil)

// Invoke makes a unary call.
func (l *Line) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := bounded(ctx, method)
	defer cancel()
	process, err := l.Target(ctx)
	if err != nil {
		return err
	}
	return l.explain(ctx, process, process.Conn().Invoke(ctx, method, args, reply, opts...))
}

// NewStream begins a streaming call, which must be read to its end or
// cancelled.
func (l *Line) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := bounded(ctx, method)
	process, err := l.Target(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	s, err := process.Conn().NewStream(ctx, desc, method, opts...)
	if err != nil {
		cancel()
		return nil, l.explain(ctx, process, err)
	}
	return &stream{ClientStream: s, explain: func(err error) error {
		defer cancel()
		return l.explain(ctx, process, err)
	}}, nil
}

type stream struct {
	grpc.ClientStream
	explain func(error) error
}

// RecvMsg gives the next message.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		return s.explain(err)
	}
	return nil
}

// explain says which plugin broke the connection, and how it ended, in place
// of what gRPC knows about that.
func (l *Line) explain(ctx context.Context, p *Process, err error) error {
	st, ok := status.FromError(err)
	broken := st.Code() == codes.Unavailable || st.Code() == codes.Canceled && ctx.Err() == nil
	if err == nil || !ok || !broken || len(st.Details()) > 0 {
		return err
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), exitNews)
	defer cancel()
	select {
	case <-p.Done():
		exit := p.Exit()
		return &fault.Error{
			Class: fault.Unavailable, Message: "plugin " + l.Label + " ended during the call with " + exit.String(),
			Resource: "plugin " + l.Label, Stderr: exit.Output, Err: err,
		}
	case <-wait.Done():
		return &fault.Error{
			Class: fault.Unavailable, Message: "plugin " + l.Label + ": " + st.Message(),
			Resource: "plugin " + l.Label, Err: err,
		}
	}
}

func bounded(ctx context.Context, method string) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit(method))
}

var limits sync.Map // method → time.Duration

// limit is what the contract says about the method: one that changes nothing
// answers soon.
func limit(method string) time.Duration {
	if known, ok := limits.Load(method); ok {
		return known.(time.Duration)
	}
	out := changeTimeout
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
		opts, _ := d.Options().(*descriptorpb.MethodOptions)
		if opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
			out = readTimeout
		}
	}
	if strings.HasSuffix(method, "/CreateVM") {
		out = createTimeout
	}
	limits.Store(method, out)
	return out
}
