package channel

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Own deadlines of calls that a healthy guest answers soon. Without a runner in
// the guest nobody answers at all.
const (
	stateTimeout  = 10 * time.Second
	busyTimeout   = 20 * time.Second
	assumeTimeout = time.Minute
	goTimeout     = 20 * time.Second
	// A host with many guests that rehearse gives each little time.
	rehearseTimeout = 90 * time.Second
	byeTimeout      = time.Second
)

// errRestarted ends the calls of a session whose other side is gone.
var errRestarted = errors.New("agent-runner in the guest began anew")

// Host is the plugin's end of a channel. Its methods may be called at the same
// time. Errors: fault.Timeout when a deadline passed, fault.Unavailable when
// the connection or the guest's program went away, else what the guest says.
type Host struct {
	conn    net.Conn
	sending chan struct{} // holds a token while somebody writes
	opening chan struct{} // the same while somebody opens a session
	reading sync.WaitGroup

	mu sync.Mutex
	// mu guards:
	session string
	open    bool
	started bool          // the reader runs
	news    chan struct{} // closed when open, err or the guest's program changes
	calls   map[uint64]*call
	last    uint64
	err     error // why the connection is of no more use
}

// call is one that was sent and not answered.
type call struct {
	incoming chan message  // output and, last, the answer
	took     chan struct{} // one for each chunk of input that the guest took
	lost     chan struct{} // closed when there will be no answer
	why      error         // set before lost is closed
}

// New makes the host's end on a connection to the port's socket. Close it.
func New(conn net.Conn) *Host {
	return &Host{
		conn: conn, sending: make(chan struct{}, 1), opening: make(chan struct{}, 1),
		news: make(chan struct{}), calls: map[uint64]*call{},
	}
}

// Close hangs up. Programs that Exec started are ended by the guest.
func (h *Host) Close() error {
	err := h.conn.Close()
	h.fail(net.ErrClosed)
	h.reading.Wait()
	return err
}

// State asks what the guest is.
func (h *Host) State(ctx context.Context) (State, error) {
	s, err := h.state(ctx)
	return s.State, err
}

func (h *Host) state(ctx context.Context) (stateReply, error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	var s stateReply
	if err := h.ask(ctx, kindState, nil, &s); err != nil {
		return stateReply{}, fmt.Errorf("ask guest for its state: %w", err)
	}
	s.Runner = printable(s.Runner)
	return s, nil
}

// AwaitReady waits until a template has booted and settled, and may be frozen.
// It may be called before the guest runs at all, and has no deadline of its
// own. fault.Precondition: this guest is no template.
func (h *Host) AwaitReady(ctx context.Context) error {
	for {
		err := h.ask(ctx, kindReady, nil, nil)
		if errors.Is(err, errRestarted) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for guest to settle: %w", err)
		}
		return nil
	}
}

// Rehearse has a copy of a template that has no identity yet do once what Assume,
// Go and the first Exec will have it do, so that an emulator has translated the code
// for it, and returns when no trace of it is left. It may be repeated. The copy gets
// fresh entropy for it and keeps what it draws from that: a guest that has rehearsed
// is not to be frozen for others. fault.Precondition: the guest is no template, or has
// an identity. fault.Unsupported: its agent-runner is older than this call; it would
// not answer it, so it is asked for its state first.
func (h *Host) Rehearse(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rehearseTimeout)
	defer cancel()
	s, err := h.state(ctx)
	if err == nil && !s.Rehearses {
		err = fault.New(fault.Unsupported, "agent-runner %s does not know how to", s.Runner).
			WithHint("build the template with the agent-runner of this release")
	}
	if err == nil {
		args := rehearseArgs{Entropy: make([]byte, rehearsalEntropy)}
		_, _ = rand.Read(args.Entropy) // never fails, see crypto/rand
		err = h.ask(ctx, kindRehearse, args, nil)
	}
	if err != nil {
		return fmt.Errorf("have guest rehearse: %w", err)
	}
	return nil
}

// Assume gives a copy of a template its identity, and returns when all of it is
// in place. The copy does nothing with it yet: see Go. A zero Time is replaced by that of sending. A host that lost the
// answer may ask for the same again. After an error of the guest it is neither
// the one nor the other: end it. fault.Precondition: it has another identity, or
// had one at its start already.
func (h *Host) Assume(ctx context.Context, id Identity) (Assumed, error) {
	if n := len(id.Seed.UserData) + len(id.Seed.MetaData) + len(id.Seed.NetworkConfig); n > maxIdentity {
		return Assumed{}, fault.New(fault.Invalid, "seed has %d bytes, at most %d can be given to a running guest", n, maxIdentity)
	}
	if len(id.Entropy) < MinEntropy || len(id.Entropy) > chunkBytes {
		return Assumed{}, fault.New(fault.Invalid, "identity has %d bytes of entropy, not between %d and %d", len(id.Entropy), MinEntropy, chunkBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, assumeTimeout)
	defer cancel()
	if err := h.ensureOpen(ctx); err != nil {
		return Assumed{}, fmt.Errorf("give guest its identity: %w", err)
	}
	if id.Time.IsZero() {
		id.Time = time.Now()
	}
	var a Assumed
	if err := h.ask(ctx, kindAssume, id, &a); err != nil {
		return Assumed{}, fmt.Errorf("give guest its identity: %w", err)
	}
	a.HostKey = printable(a.HostKey)
	for i := range a.Duties {
		a.Duties[i].Name = printable(a.Duties[i].Name)
	}
	return a, nil
}

// Go lets a guest that has assumed an identity use it, and returns when the guest
// has begun to. It may be repeated, and is nothing to a guest that serves already.
// After any error it is unknown whether the guest has begun. fault.Precondition:
// it has no identity.
func (h *Host) Go(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, goTimeout)
	defer cancel()
	for {
		err := h.ask(ctx, kindGo, nil, nil)
		if errors.Is(err, errRestarted) {
			continue
		}
		if err != nil {
			return fmt.Errorf("let guest go: %w", err)
		}
		return nil
	}
}

// Busy lists what in the guest uses the disk with this serial number: mount
// points, swap, other block devices. None: it may be taken away. A disk that
// the guest does not see is not used.
func (h *Host) Busy(ctx context.Context, serial string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	var r busyReply
	if err := h.ask(ctx, kindBusy, busyArgs{Serial: serial}, &r); err != nil {
		return nil, fmt.Errorf("ask guest who uses disk %s: %w", serial, err)
	}
	for i := range r.Users {
		r.Users[i] = printable(r.Users[i])
	}
	return r.Users, nil
}

// ask makes a call whose only answer is one message.
func (h *Host) ask(ctx context.Context, k kind, args, reply any) error {
	c, id, err := h.begin(ctx, k, args)
	if err != nil {
		return err
	}
	defer h.forget(id)
	select {
	case m := <-c.incoming:
		return settle(m, reply)
	case <-c.lost:
		return c.why
	case <-ctx.Done():
		h.cancel(ctx, id)
		return ended(ctx)
	}
}

// settle reads an answer.
func settle(m message, reply any) error {
	switch {
	case m.Kind != kindAnswer:
		return fault.New(fault.Unavailable, "the guest answers with %q", printable(string(m.Kind)))
	case m.Fault != nil:
		return m.Fault.fault()
	case reply == nil:
		return nil
	}
	if err := json.Unmarshal(m.Body, reply); err != nil {
		return fault.New(fault.Unavailable, "the guest's answer cannot be read: %w", err)
	}
	return nil
}

// begin opens a session if there is none, and sends the call.
func (h *Host) begin(ctx context.Context, k kind, args any) (*call, uint64, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, 0, fault.New(fault.Internal, "encode call: %w", err)
	}
	if err := h.ensureOpen(ctx); err != nil {
		return nil, 0, err
	}
	c := &call{
		incoming: make(chan message, window+1), took: make(chan struct{}, window), lost: make(chan struct{}),
	}
	h.mu.Lock()
	if !h.open {
		err := h.err
		h.mu.Unlock()
		if err == nil {
			err = lostBy(errRestarted)
		}
		return nil, 0, err
	}
	h.last++
	id := h.last
	h.calls[id] = c
	h.mu.Unlock()
	if err := h.send(ctx, message{Call: id, Kind: k, Body: body}); err != nil {
		h.forget(id)
		return nil, 0, err
	}
	return c, id, nil
}

func (h *Host) forget(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.calls, id)
}

// cancel tells the guest that nobody waits for this call any more.
func (h *Host) cancel(ctx context.Context, id uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), byeTimeout)
	defer cancel()
	_ = h.send(ctx, message{Call: id, Kind: kindCancel}) // a guest that hears nothing learns it from the hang-up
}

// send writes a message of the current session before ctx ends. Half a line
// that is left of it is made good by the empty line before the next.
func (h *Host) send(ctx context.Context, m message) error {
	h.mu.Lock()
	m.Session = h.session
	h.mu.Unlock()
	line, err := encode(m)
	if err != nil {
		return fault.New(fault.Internal, "encode message: %w", err)
	}
	select {
	case h.sending <- struct{}{}:
	case <-ctx.Done():
		return ended(ctx)
	}
	defer func() { <-h.sending }()
	if ctx.Err() != nil {
		return ended(ctx)
	}
	_ = h.conn.SetWriteDeadline(time.Time{})
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = h.conn.SetWriteDeadline(time.Unix(1, 0))
		close(over)
	})
	_, err = h.conn.Write(line)
	if !stop() {
		<-over // or it would cut off the next message
	}
	if err != nil {
		if ctx.Err() != nil {
			return ended(ctx)
		}
		return lostBy(err)
	}
	return nil
}

// ended is the error of a call whose context is over.
func ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.Timeout, "agent-runner in the guest did not answer in time: %w", ctx.Err())
	}
	return fault.New(fault.Unavailable, "the call was given up: %w", ctx.Err())
}

func lostBy(err error) error {
	return fault.New(fault.Unavailable, "the channel to the guest broke: %w", err)
}

// newSession makes the id that the lines of one session carry.
func newSession() string { return rand.Text() }
