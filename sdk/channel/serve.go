package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/agentlab/agentlab/sdk/fault"
)

// ErrHangup is what a port's Read returns when the host's client went away and
// another may come.
var ErrHangup = errors.New("the host hung up")

// Handler answers the host's calls in the guest. Each call has its own
// goroutine; its context ends when the host gives it up or hangs up.
type Handler interface {
	State() State
	// Settle returns when a template may be frozen.
	Settle(ctx context.Context) error
	// Rehearse returns when a template has done once what it will do with an
	// identity and after, and has no trace of that. It mixes in the entropy first.
	Rehearse(ctx context.Context, entropy []byte) error
	Assume(ctx context.Context, id Identity) (Assumed, error)
	Go(ctx context.Context) error
	Busy(ctx context.Context, serial string) ([]string, error)
	// Exec must not return before it is done with the streams.
	Exec(ctx context.Context, e Exec, stdin io.Reader, stdout, stderr io.Writer) (code int, err error)
}

// server is the guest's end of a channel.
type server struct {
	port    io.ReadWriteCloser
	handler Handler
	serving sync.WaitGroup
	said    chan struct{} // closed when kindStarted is out: nothing comes before it

	writing sync.Mutex // one line at a time

	mu sync.Mutex
	// mu guards:
	session string
	end     context.CancelFunc
	ctx     context.Context // of the session
	calls   map[callKey]*served
}

// callKey: numbers begin anew in each session, and calls of the last one may
// still be ending.
type callKey struct {
	session string
	call    uint64
}

// served is one call of the host.
type served struct {
	server  *server
	session string
	id      uint64
	ctx     context.Context
	cancel  context.CancelFunc
	input   chan []byte   // an empty chunk is the end
	ended   chan struct{} // closed at the end of the input
	endOnce sync.Once
	room    chan struct{} // holds a token for each chunk of output under way
}

func (c *served) endInput() { c.endOnce.Do(func() { close(c.ended) }) }

func (c *served) send(m message) error {
	m.Session, m.Call = c.session, c.id
	return c.server.write(m)
}

// Serve answers on port until ctx ends or the port fails, and closes it. Only
// one at a time may serve a port.
func Serve(ctx context.Context, port io.ReadWriteCloser, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{port: port, handler: h, said: make(chan struct{}), calls: map[callKey]*served{}, ctx: ctx, end: func() {}}
	unblock := context.AfterFunc(ctx, func() { _ = port.Close() })
	defer s.serving.Wait()
	defer func() {
		cancel()
		if unblock() {
			_ = port.Close()
		}
	}()
	// The host may not be there yet to read it.
	s.serving.Go(func() {
		_ = s.write(message{Kind: kindStarted})
		close(s.said)
	})
	in := newLines(port, maxHostLine)
	for {
		m, err := in.next()
		switch {
		case err == nil:
			s.take(ctx, m)
		case errors.Is(err, ErrHangup):
			s.begin(ctx, "")
		case errors.Is(err, errLongLine): // of nobody we know; the next line counts
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("read from host: %w", err)
		}
	}
}

func (s *server) write(m message) error {
	line, err := encode(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.port.Write(line); err != nil {
		return fmt.Errorf("write to host: %w", err)
	}
	return nil
}

// begin ends the session that was, and all its calls.
func (s *server) begin(ctx context.Context, session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
	s.session = session
	s.ctx, s.end = context.WithCancel(ctx)
}

func (s *server) take(ctx context.Context, m message) {
	if m.Kind == kindOpen && m.Session != "" {
		if m.Session != s.session {
			s.begin(ctx, m.Session)
		}
		s.serving.Go(func() {
			<-s.said
			_ = s.write(message{Session: m.Session, Kind: kindOpened, Version: version})
		})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Session == "" || m.Session != s.session {
		return
	}
	c := s.calls[callKey{m.Session, m.Call}]
	if c == nil {
		s.start(m)
		return
	}
	switch m.Kind {
	case kindCancel:
		c.cancel()
	case kindTook:
		select {
		case <-c.room:
		default:
		}
	case kindStdin:
		select {
		case c.input <- m.Data:
		default:
			c.cancel() // more than the window: no host of ours
		}
	}
}

// start begins a call; mu is held. What belongs to a call that is over is
// passed over.
func (s *server) start(m message) {
	var do func(*served, message) (any, error)
	switch m.Kind {
	case kindState:
		do = func(*served, message) (any, error) { return stateReply{s.handler.State(), true}, nil }
	case kindReady:
		do = func(c *served, _ message) (any, error) { return nil, s.handler.Settle(c.ctx) }
	case kindRehearse:
		do = s.rehearse
	case kindAssume:
		do = s.assume
	case kindGo:
		do = func(c *served, _ message) (any, error) { return nil, s.handler.Go(c.ctx) }
	case kindBusy:
		do = s.busy
	case kindExec:
		do = s.exec
	default:
		return
	}
	c := &served{
		server: s, session: m.Session, id: m.Call,
		input: make(chan []byte, window+1), ended: make(chan struct{}), room: make(chan struct{}, window),
	}
	if len(s.calls) >= maxCalls {
		do = func(*served, message) (any, error) {
			return nil, fault.New(fault.Exhausted, "%d calls are under way", maxCalls)
		}
	}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	s.calls[callKey{c.session, c.id}] = c
	s.serving.Go(func() {
		defer s.finish(c)
		reply, err := do(c, m)
		if c.ctx.Err() == nil { // else nobody waits for it
			c.answer(reply, err)
		}
	})
}

func (s *server) finish(c *served) {
	c.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, callKey{c.session, c.id})
}

func (c *served) answer(reply any, err error) {
	m := message{Kind: kindAnswer}
	if err == nil {
		m.Body, err = json.Marshal(reply)
	}
	if err != nil {
		m.Fault = failureOf(err)
	}
	_ = c.send(m) // the host is gone, and so is who would want to know
}

func (s *server) rehearse(c *served, m message) (any, error) {
	var args rehearseArgs
	if err := json.Unmarshal(m.Body, &args); err != nil || len(args.Entropy) < MinEntropy {
		return nil, fault.New(fault.Invalid, "entropy cannot be read")
	}
	return nil, s.handler.Rehearse(c.ctx, args.Entropy)
}

func (s *server) assume(c *served, m message) (any, error) {
	var id Identity
	if err := json.Unmarshal(m.Body, &id); err != nil {
		return nil, fault.New(fault.Invalid, "identity cannot be read")
	}
	return s.handler.Assume(c.ctx, id)
}

func (s *server) busy(c *served, m message) (any, error) {
	var args busyArgs
	if err := json.Unmarshal(m.Body, &args); err != nil {
		return nil, fault.New(fault.Invalid, "serial number cannot be read")
	}
	users, err := s.handler.Busy(c.ctx, args.Serial)
	return busyReply{Users: users}, err
}

func (s *server) exec(c *served, m message) (any, error) {
	var e Exec
	if err := json.Unmarshal(m.Body, &e); err != nil || len(e.Argv) == 0 {
		return nil, fault.New(fault.Invalid, "program cannot be read")
	}
	code, err := s.handler.Exec(c.ctx, e, &inflow{call: c}, outflow{c, kindStdout}, outflow{c, kindStderr})
	return execReply{Code: code}, err
}
