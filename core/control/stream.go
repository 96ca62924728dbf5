package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// sshPort is the only port that a stream may reach: the API is no way around
// what exposures allow.
const sshPort = 22

const (
	dialTimeout = 25 * time.Second
	lookTimeout = 2 * time.Second // at a row, while the daemon may want to stop
)

// sandboxStream joins the caller with a TCP port of the sandbox.
func (s *Server) sandboxStream(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), api.StreamProtocol) {
		w.Header().Set("Upgrade", api.StreamProtocol)
		return statusError{http.StatusUpgradeRequired, fault.New(fault.Invalid, "this route needs Upgrade: %s", api.StreamProtocol)}
	}
	if port := queryInt(r, "port", sshPort); port != sshPort {
		return fault.New(fault.Unsupported, "port %d cannot be reached through the daemon", port).WithHint("only port %d can", sshPort)
	}
	id, target, err := s.dialSandbox(r)
	if err != nil {
		return err
	}
	defer target.Close()
	// Before the take-over: from then on the server's shutdown does not wait.
	s.streams.Add(1)
	defer s.streams.Done()
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	conn, rw, err := rc.Hijack()
	if err != nil {
		return fault.New(fault.Internal, "take over connection: %w", err)
	}
	defer conn.Close()
	if rec, ok := w.(*recorder); ok {
		rec.status = http.StatusSwitchingProtocols
	}
	_ = conn.SetDeadline(time.Now().Add(stall))
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", api.StreamProtocol); err != nil {
		return nil // the caller is gone, and nothing can be answered any more
	}
	_ = conn.SetDeadline(time.Time{})
	s.join(r.Context(), conn, rw.Reader, target, id)
	return nil
}

func (s *Server) dialSandbox(r *http.Request) (id string, _ net.Conn, _ error) {
	sb, err := s.cfg.Store.FindSandbox(r.Context(), r.PathValue("ref"))
	if err != nil {
		return "", nil, err
	}
	if (sb.State != lab.SandboxReady && sb.State != lab.SandboxRunning) || !sb.Address.IsValid() {
		return "", nil, fault.New(fault.Precondition, "sandbox is %s", sb.State).WithResource("sandbox %d", sb.VMID).
			WithHint("it can be entered while it is READY or RUNNING")
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	defer cancel()
	conn, err := s.cfg.Dial(ctx, netip.AddrPortFrom(sb.Address, sshPort))
	if err != nil {
		return "", nil, fault.New(fault.Unavailable, "connect to %s port %d: %w", sb.Address, sshPort, err).
			WithResource("sandbox %d", sb.VMID).WithHint("sshd may still be starting")
	}
	return sb.ID, conn, nil
}

// join copies both ways until both ends are done, the sandbox lets nobody in any more
// or the daemon stops. early holds what the caller sent before it had our answer.
func (s *Server) join(ctx context.Context, caller net.Conn, early *bufio.Reader, target net.Conn, sandboxID string) {
	done := make(chan struct{}, 2)
	copyOne := func(dst net.Conn, src io.Reader) {
		_, _ = io.Copy(dst, src) // either end may go at any time
		if h, ok := dst.(interface{ CloseWrite() error }); !ok || h.CloseWrite() != nil {
			_ = dst.Close()
		}
		done <- struct{}{}
	}
	go copyOne(target, early)
	go copyOne(caller, target)
	// A VM that was taken away says no farewell: TCP alone would wait for a quarter of an hour.
	changed, stop := s.cfg.Store.WatchSandbox(sandboxID)
	defer stop()
	closing := s.closing
	for left, over := 2, s.closed(ctx, sandboxID); left > 0; {
		if over {
			_ = caller.Close()
			_ = target.Close()
		}
		select {
		case <-done:
			left--
		case <-changed:
			over = over || s.closed(ctx, sandboxID)
		case <-closing:
			over, closing = true, nil
		}
	}
}

// closed tells whether the sandbox is one that nobody is let into. What cannot be
// read now will be asked at the next change.
func (s *Server) closed(ctx context.Context, sandboxID string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	sb, err := s.cfg.Store.Sandbox(ctx, sandboxID)
	return errors.Is(err, fault.NotFound) ||
		err == nil && (sb.State == lab.SandboxStopped || sb.State == lab.SandboxFailed || sb.State == lab.SandboxDestroyed)
}
