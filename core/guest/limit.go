package guest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	connsPerSource = 16
	callRate       = 100 // calls per second and address, on average
	callBurst      = 200
	longestQueue   = 5 * time.Second  // that a call waits for its turn
	denialEvery    = 10 * time.Second // at most one event per address
	newsEvery      = 2 * time.Second  // on average, for what makes an event each time
	newsBurst      = 100
	callerIdle     = 10 * time.Minute // until an address is forgotten
)

// callers holds what each address has used up. Addresses come from the agent
// subnet only, and idle ones are forgotten.
type callers struct {
	mu sync.Mutex
	// mu guards:
	all   map[netip.Addr]*caller
	swept time.Time
}

type caller struct {
	calls   *rate.Limiter
	denials *rate.Limiter
	news    *rate.Limiter
	seen    time.Time
}

func (c *callers) get(addr netip.Addr) *caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.all == nil {
		c.all = map[netip.Addr]*caller{}
	}
	if now.Sub(c.swept) > callerIdle {
		c.swept = now
		for a, one := range c.all {
			if now.Sub(one.seen) > callerIdle {
				delete(c.all, a)
			}
		}
	}
	one := c.all[addr]
	if one == nil {
		one = &caller{
			calls:   rate.NewLimiter(callRate, callBurst),
			denials: rate.NewLimiter(rate.Every(denialEvery), 1),
			news:    rate.NewLimiter(rate.Every(newsEvery), newsBurst),
		}
		c.all[addr] = one
	}
	one.seen = now
	return one
}

// wait holds a call back until it is within the rate; a queue that is too long
// is fault.Exhausted.
func (c *caller) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, longestQueue)
	defer cancel()
	if err := c.calls.Wait(ctx); err != nil {
		return &fault.Error{Class: fault.Exhausted, Message: "too many calls", RetryAfter: time.Second}
	}
	return nil
}

// tell asks for leave to make one more event: a guest that says something new
// all the time would fill the database.
func (c *caller) tell() error {
	if !c.news.Allow() {
		return &fault.Error{Class: fault.Unavailable, Message: "too much news", RetryAfter: 2 * newsEvery}
	}
	return nil
}

// perSource is a listener that closes connections beyond the limit of one
// source address at once.
type perSource struct {
	net.Listener
	limit int
	mu    sync.Mutex
	// mu guards:
	open map[netip.Addr]int
}

func newPerSource(ln net.Listener, limit int) *perSource {
	return &perSource{Listener: ln, limit: limit, open: map[netip.Addr]int{}}
}

func (p *perSource) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := sourceOf(conn.RemoteAddr().String())
		if p.take(addr) {
			return &countedConn{Conn: conn, release: sync.OnceFunc(func() { p.give(addr) })}, nil
		}
		_ = conn.Close()
	}
}

func (p *perSource) take(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[addr] >= p.limit {
		return false
	}
	p.open[addr]++
	return true
}

func (p *perSource) give(addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[addr]--; p.open[addr] <= 0 {
		delete(p.open, addr)
	}
}

type countedConn struct {
	net.Conn
	release func()
}

func (c *countedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// sourceOf gives the address in "host:port", the zero one if there is none.
func sourceOf(hostport string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// keyLocks is a mutex per key, whose wait ends with the context.
type keyLocks struct {
	mu sync.Mutex
	// mu guards:
	all map[string]*keyLock
}

type keyLock struct {
	slot  chan struct{}
	users int
}

func (k *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.all == nil {
		k.all = map[string]*keyLock{}
	}
	l := k.all[key]
	if l == nil {
		l = &keyLock{slot: make(chan struct{}, 1)}
		k.all[key] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.all, key)
		}
	}
	select {
	case l.slot <- struct{}{}:
		return func() { <-l.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fault.New(fault.Unavailable, "another call on this job is under way: %w", ctx.Err())
	}
}
