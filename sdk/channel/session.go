package channel

import (
	"context"

	"github.com/agentlab/agentlab/sdk/fault"
)

// ensureOpen returns when there is a session, and waits for the guest if need be.
func (h *Host) ensureOpen(ctx context.Context) error {
	select {
	case h.opening <- struct{}{}:
	case <-ctx.Done():
		return ended(ctx)
	}
	defer func() { <-h.opening }()
	h.mu.Lock()
	if h.open || h.err != nil {
		defer h.mu.Unlock()
		return h.err
	}
	h.session = newSession()
	if !h.started {
		h.started = true
		h.reading.Go(h.read)
	}
	h.mu.Unlock()
	for {
		h.mu.Lock()
		news := h.news
		h.mu.Unlock()
		if err := h.send(ctx, message{Kind: kindOpen, Version: version}); err != nil {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ended(ctx)
		}
		h.mu.Lock()
		open, err := h.open, h.err
		h.mu.Unlock()
		if open || err != nil {
			return err
		}
		// A program that has just begun may not have seen what was sent before it.
	}
}

// read takes in what the guest sends until the connection is of no more use.
func (h *Host) read() {
	in := newLines(h.conn, maxGuestLine)
	for {
		m, err := in.next()
		if err == nil {
			err = h.take(m)
		}
		if err != nil {
			h.fail(err)
			return
		}
	}
}

// take never waits: what a guest may send without being asked for more has a
// place, and one that sends more breaks the wire's rules.
func (h *Host) take(m message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.Kind == kindStarted {
		h.lose(errRestarted)
		return nil
	}
	if m.Session != h.session {
		return nil // of another client, before us
	}
	if m.Kind == kindOpened {
		if m.Version != version {
			return fault.New(fault.Unsupported, "agent-runner in the guest speaks version %d of the channel, not %d", m.Version, version).
				WithHint("build the template with the agent-runner of this release")
		}
		h.open = true
		h.tell()
		return nil
	}
	c := h.calls[m.Call]
	if c == nil {
		return nil // given up
	}
	var room bool
	if m.Kind == kindTook {
		select {
		case c.took <- struct{}{}:
			room = true
		default:
		}
	} else {
		select {
		case c.incoming <- m:
			room = true
		default:
		}
	}
	if !room {
		return fault.New(fault.Unavailable, "the guest sends more than it was asked for")
	}
	return nil
}

// lose ends the session; mu is held.
func (h *Host) lose(why error) {
	if _, classified := why.(*fault.Error); !classified {
		why = lostBy(why)
	}
	for id, c := range h.calls {
		c.why = why
		close(c.lost)
		delete(h.calls, id)
	}
	h.open = false
	h.tell()
}

// tell wakes who waits for a session; mu is held.
func (h *Host) tell() {
	close(h.news)
	h.news = make(chan struct{})
}

// fail makes the connection useless for good.
func (h *Host) fail(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return
	}
	if _, classified := why.(*fault.Error); !classified {
		why = lostBy(why)
	}
	h.err = why
	h.lose(why)
}
