package launch

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc"
)

// inFlight counts the calls of a connection whose answer has not arrived. The
// plugin cannot know: for it a call is over before the answer is written.
type inFlight struct {
	mu sync.Mutex
	// mu guards:
	count int
	idle  chan struct{} // not nil: closed when nothing runs
}

func (f *inFlight) enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
}

func (f *inFlight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count--
	if f.count == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// wait returns when no call runs, or ctx ends.
func (f *inFlight) wait(ctx context.Context) {
	f.mu.Lock()
	if f.count == 0 {
		f.mu.Unlock()
		return
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// options make a connection count its calls, but for those of go-plugin itself,
// which last as long as the process.
func (f *inFlight) options() []grpc.DialOption {
	unary := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		f.enter()
		defer f.leave()
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	stream := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if strings.HasPrefix(method, "/plugin.") {
			return open(ctx, desc, cc, method, opts...)
		}
		f.enter()
		leave := sync.OnceFunc(f.leave)
		s, err := open(ctx, desc, cc, method, append(opts[:len(opts):len(opts)], grpc.OnFinish(func(error) { leave() }))...)
		if err != nil {
			leave()
		}
		return s, err
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(stream)}
}
