package channel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// port is a guest's serial port as QEMU gives it: one client of the host at a
// time, and what one leaves half said stays in the stream.
type port struct {
	clients chan net.Conn
	closed  chan struct{}
	once    sync.Once

	mu sync.Mutex
	// mu guards:
	now  net.Conn
	come chan struct{} // closed when there is a client
}

func newPort() *port {
	return &port{clients: make(chan net.Conn), closed: make(chan struct{}), come: make(chan struct{})}
}

func (p *port) client() (net.Conn, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.come
}

func (p *port) Read(b []byte) (int, error) {
	conn, _ := p.client()
	if conn == nil {
		select {
		case conn = <-p.clients:
		case <-p.closed:
			return 0, os.ErrClosed
		}
		p.mu.Lock()
		p.now = conn
		close(p.come)
		p.mu.Unlock()
	}
	n, err := conn.Read(b)
	if err == nil {
		return n, nil
	}
	select {
	case <-p.closed:
		return n, os.ErrClosed
	default:
	}
	p.mu.Lock()
	p.now, p.come = nil, make(chan struct{})
	p.mu.Unlock()
	conn.Close()
	return n, channel.ErrHangup
}

func (p *port) Write(b []byte) (int, error) {
	conn, come := p.client()
	if conn == nil {
		select {
		case <-come:
		case <-p.closed:
			return 0, os.ErrClosed
		}
		conn, _ = p.client()
	}
	if conn != nil {
		_, _ = conn.Write(b) // lost with the client
	}
	return len(b), nil
}

func (p *port) Close() error {
	p.once.Do(func() {
		close(p.closed)
		if conn, _ := p.client(); conn != nil {
			conn.Close()
		}
	})
	return nil
}

// dial connects a client of the host.
func (p *port) dial(t *testing.T) net.Conn {
	t.Helper()
	host, guest := pair(t)
	select {
	case p.clients <- guest:
	case <-time.After(5 * time.Second):
		t.Fatal("the port takes no client")
	}
	return host
}

// pair is a connected pair of stream sockets.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	t.Cleanup(func() { conns[0].Close(); conns[1].Close() })
	return conns[0], conns[1]
}

// guest answers as a test wants it.
type guest struct {
	settle    func(ctx context.Context) error
	exec      func(ctx context.Context, e channel.Exec, in io.Reader, out, errs io.Writer) (int, error)
	got       chan channel.Identity
	went      int
	rehearsed []byte // the entropy for it
	unfit     error  // what comes of a rehearsal
}

func (g *guest) State() channel.State {
	return channel.State{Phase: channel.PhaseTemplate, Runner: "1.2\x1b[31m"}
}

func (g *guest) Settle(ctx context.Context) error {
	if g.settle == nil {
		return nil
	}
	return g.settle(ctx)
}

func (g *guest) Rehearse(_ context.Context, entropy []byte) error {
	if g.rehearsed != nil && bytes.Equal(g.rehearsed, entropy) {
		return fault.New(fault.Invalid, "the entropy is not fresh")
	}
	g.rehearsed = entropy
	return g.unfit
}

func (g *guest) Assume(_ context.Context, id channel.Identity) (channel.Assumed, error) {
	g.got <- id
	return channel.Assumed{HostKey: "ssh-ed25519 AAAA", Duties: []channel.Duty{{Name: "entropy", Took: time.Millisecond}}}, nil
}

func (g *guest) Go(context.Context) error {
	g.went++
	return nil
}

func (g *guest) Busy(_ context.Context, serial string) ([]string, error) {
	if serial == "broken" {
		return nil, fault.New(fault.NotFound, "no\nsuch disk").WithHint("plug it in")
	}
	return []string{"/mnt/" + serial}, nil
}

func (g *guest) Exec(ctx context.Context, e channel.Exec, in io.Reader, out, errs io.Writer) (int, error) {
	if g.exec == nil {
		return 0, nil
	}
	return g.exec(ctx, e, in, out, errs)
}

// serve runs the guest's end until the test is over.
func serve(t *testing.T, p io.ReadWriteCloser, g *guest) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- channel.Serve(ctx, p, g) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("serve does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newHost(t *testing.T, conn net.Conn) *channel.Host {
	t.Helper()
	h := channel.New(conn)
	t.Cleanup(func() { h.Close() })
	return h
}

func TestCalls(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T) (net.Conn, net.Conn){
		"socket": pair,
		"pipe":   func(*testing.T) (net.Conn, net.Conn) { return net.Pipe() },
	} {
		t.Run(name, func(t *testing.T) {
			here, there := connect(t)
			g := &guest{got: make(chan channel.Identity, 1)}
			serve(t, there, g)
			h, ctx := newHost(t, here), soon(t)
			if s, err := h.State(ctx); err != nil || s != (channel.State{Phase: channel.PhaseTemplate, Runner: "1.2 [31m"}) {
				t.Errorf("state %q, %v", s, err)
			}
			if err := h.AwaitReady(ctx); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := h.Rehearse(ctx); err != nil {
					t.Error(err)
				}
			}
			if len(g.rehearsed) < channel.MinEntropy || bytes.Equal(g.rehearsed, make([]byte, len(g.rehearsed))) {
				t.Errorf("a rehearsal with entropy %x", g.rehearsed)
			}
			g.unfit = fault.New(fault.Precondition, "no template")
			if err := h.Rehearse(ctx); !errors.Is(err, fault.Precondition) {
				t.Errorf("a rehearsal that the guest refuses: %v", err)
			}
			if users, err := h.Busy(ctx, "data"); err != nil || !cmp.Equal(users, []string{"/mnt/data"}) {
				t.Errorf("users %q, %v", users, err)
			}
			_, err := h.Busy(ctx, "broken")
			if !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no such disk") || fault.HintOf(err) != "plug it in" {
				t.Errorf("refusal: %v", err)
			}
			id := channel.Identity{
				MAC: "52:54:00:00:00:01", Entropy: bytes.Repeat([]byte{7}, 64),
				Seed: channel.Seed{UserData: bytes.Repeat([]byte("u"), 1<<20-2), MetaData: []byte("m"), NetworkConfig: []byte("n")},
			}
			a, err := h.Assume(ctx, id)
			if err != nil || a.HostKey != "ssh-ed25519 AAAA" || len(a.Duties) != 1 || a.Duties[0].Took != time.Millisecond {
				t.Errorf("assumed %+v, %v", a, err)
			}
			for range 2 {
				if err := h.Go(ctx); err != nil {
					t.Error(err)
				}
			}
			if g.went != 2 {
				t.Errorf("the guest was let go %d times", g.went)
			}
			got := <-g.got
			if age := time.Since(got.Time); age < 0 || age > 10*time.Second {
				t.Errorf("time is %v old", age)
			}
			if got.Time = (time.Time{}); !reflect.DeepEqual(got, id) {
				t.Error("the identity is another one")
			}
			id.Seed.UserData = append(id.Seed.UserData, 'x')
			if _, err := h.Assume(ctx, id); !errors.Is(err, fault.Invalid) {
				t.Errorf("a seed that is too large: %v", err)
			}
			if _, err := h.Assume(ctx, channel.Identity{Entropy: make([]byte, 63)}); !errors.Is(err, fault.Invalid) {
				t.Errorf("too little entropy: %v", err)
			}
		})
	}
}

func TestExec(t *testing.T) {
	here, there := pair(t)
	serve(t, there, &guest{exec: func(_ context.Context, e channel.Exec, in io.Reader, out, errs io.Writer) (int, error) {
		if e.Argv[0] == "missing" {
			return 0, fault.New(fault.NotFound, "no such program")
		}
		fmt.Fprintf(errs, "%s %s %s", e.Argv, e.Env, e.Dir)
		_, err := io.Copy(out, in)
		return 7, err
	}})
	h, ctx := newHost(t, here), soon(t)
	input := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // several windows
	var out, errs bytes.Buffer
	code, err := h.Exec(ctx, channel.Exec{Argv: []string{"cat"}, Env: []string{"A=b"}, Dir: "/tmp"}, bytes.NewReader(input), &out, &errs)
	if code != 7 || err != nil || !bytes.Equal(out.Bytes(), input) || errs.String() != "[cat] [A=b] /tmp" {
		t.Errorf("code %d, %v, %d of %d bytes, %q", code, err, out.Len(), len(input), errs.String())
	}
	if code, err := h.Exec(ctx, channel.Exec{Argv: []string{"cat"}}, nil, nil, nil); code != 7 || err != nil {
		t.Errorf("without streams: code %d, %v", code, err)
	}
	if _, err := h.Exec(ctx, channel.Exec{Argv: []string{"missing"}}, nil, nil, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("missing program: %v", err)
	}
	if _, err := h.Exec(ctx, channel.Exec{}, nil, nil, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("no program: %v", err)
	}
}

// stuck is a writer that takes nothing until it is freed.
type stuck struct {
	begun, free chan struct{}
	once        sync.Once
}

func newStuck() *stuck { return &stuck{begun: make(chan struct{}), free: make(chan struct{})} }

func (s *stuck) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.free
	return len(p), nil
}

// Output that nobody takes holds up the program, and no other call.
func TestSlowReaderHoldsUpOnlyItsProgram(t *testing.T) {
	here, there := pair(t)
	var sent int
	running := make(chan struct{})
	serve(t, there, &guest{exec: func(ctx context.Context, _ channel.Exec, _ io.Reader, out, _ io.Writer) (int, error) {
		defer close(running)
		for {
			n, err := out.Write(make([]byte, 32<<10))
			if sent += n; err != nil {
				return 0, err
			}
		}
	}})
	h := newHost(t, here)
	ctx, cancel := context.WithCancel(soon(t))
	w := newStuck()
	done := make(chan error, 1)
	go func() {
		_, err := h.Exec(ctx, channel.Exec{Argv: []string{"yes"}}, nil, w, nil)
		done <- err
	}()
	<-w.begun
	if _, err := h.State(soon(t)); err != nil {
		t.Error(err)
	}
	time.Sleep(50 * time.Millisecond)
	cancel()
	close(w.free)
	if err := <-done; err == nil {
		t.Error("a cancelled program succeeded")
	}
	select {
	case <-running:
	case <-time.After(5 * time.Second):
		t.Fatal("the program runs on")
	}
	if sent > 2<<20 {
		t.Errorf("%d bytes were sent to a reader that took none", sent)
	}
}

// A program ends with the host that wanted it, however that went away.
func TestProgramEndsWithItsHost(t *testing.T) {
	for name, leave := range map[string]func(cancel func(), h *channel.Host, conn net.Conn){
		"context over": func(cancel func(), _ *channel.Host, _ net.Conn) { cancel() },
		"closed":       func(_ func(), h *channel.Host, _ net.Conn) { h.Close() },
		"killed":       func(_ func(), _ *channel.Host, conn net.Conn) { conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPort()
			begun, over := make(chan struct{}), make(chan struct{})
			serve(t, p, &guest{exec: func(ctx context.Context, _ channel.Exec, _ io.Reader, _, _ io.Writer) (int, error) {
				close(begun)
				<-ctx.Done()
				close(over)
				return 0, ctx.Err()
			}})
			conn := p.dial(t)
			h := newHost(t, conn)
			ctx, cancel := context.WithCancel(soon(t))
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := h.Exec(ctx, channel.Exec{Argv: []string{"sleep"}}, nil, nil, nil)
				done <- err
			}()
			<-begun
			leave(cancel, h, conn)
			select {
			case <-over:
			case <-time.After(5 * time.Second):
				t.Error("the program runs on")
			}
			if err := <-done; !errors.Is(err, fault.Unavailable) {
				t.Errorf("error %v", err)
			}
		})
	}
}
