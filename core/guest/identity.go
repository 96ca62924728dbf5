package guest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	jsonDeadline = 15 * time.Second // for a JSON body to arrive
	stall        = 30 * time.Second // that a stream may stand still
	longestBody  = 15 * time.Minute // for a file to arrive
)

type call func(w http.ResponseWriter, r *http.Request, from netip.Addr) error

// limited holds each address to its rate, also where it calls what there is not.
func (s *Server) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(jsonDeadline))
		_ = rc.SetWriteDeadline(time.Now().Add(2 * jsonDeadline))
		if err := s.callers.get(sourceOf(r.RemoteAddr)).wait(r.Context()); err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// answered turns panics and errors of a call into answers.
func (s *Server) answered(f call) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.attempt(f, w, r, sourceOf(r.RemoteAddr)); err != nil {
			s.refuse(w, r, err)
		}
	})
}

func (s *Server) attempt(f call, w http.ResponseWriter, r *http.Request, from netip.Addr) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("call panicked", "path", r.URL.Path, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "panic")
		}
	}()
	return f(w, r, from)
}

// refuse answers with the error. A defect of ours is told to the log, not to
// the guest.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if fault.ClassOf(err) == fault.Internal {
		s.log.Error("guest call failed", "path", r.URL.Path, "address", r.RemoteAddr, "err", err)
		err = fault.New(fault.Internal, "the host failed on this call")
	}
	status := 0
	if se, ok := errors.AsType[statusError](err); ok {
		status = se.status
	}
	problem.WriteStatus(w, status, err)
}

// statusError overrides the status that the error's class has.
type statusError struct {
	status int
	err    error
}

func (e statusError) Error() string { return e.err.Error() }
func (e statusError) Unwrap() error { return e.err }

func tooLarge(format string, args ...any) error {
	return statusError{http.StatusRequestEntityTooLarge, fault.New(fault.Exhausted, format, args...)}
}

// credentialed adds the caller's sandbox.
func (s *Server) credentialed(name string, f func(w http.ResponseWriter, r *http.Request, sb lab.Sandbox) error) http.Handler {
	return s.answered(func(w http.ResponseWriter, r *http.Request, from netip.Addr) error {
		sb, err := s.authenticate(r, name, from)
		if err != nil {
			return err
		}
		return f(w, r, sb)
	})
}

func (s *Server) authenticate(r *http.Request, name string, from netip.Addr) (lab.Sandbox, error) {
	credential, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || credential == "" {
		return lab.Sandbox{}, s.deny(r.Context(), from, name, "no credential")
	}
	hash := sha256.Sum256([]byte(credential))
	sb, err := s.store.Authenticate(r.Context(), from, hash[:])
	if errors.Is(err, state.ErrRevoked) {
		// A runner that has not heard of the end yet: its job ended by the host's
		// word, or its sandbox is being destroyed. That is no alarm.
		s.log.Debug("call with a revoked credential", "call", name, "address", from.String())
		return lab.Sandbox{}, state.ErrRevoked
	}
	if errors.Is(err, fault.Denied) {
		return lab.Sandbox{}, s.deny(r.Context(), from, name, "the credential is not valid here")
	}
	if err != nil {
		return lab.Sandbox{}, fmt.Errorf("authenticate: %w", err)
	}
	return sb, nil
}

// deny makes the answer for a call that is not allowed, and an event, at most
// one per address and denialEvery.
func (s *Server) deny(ctx context.Context, from netip.Addr, name, reason string) error {
	if s.callers.get(from).denials.Allow() {
		e := lab.Event{
			At: time.Now(), Type: lab.EventGuestDenied, Message: fmt.Sprintf("%s from %s denied: %s", name, from, reason),
			Fields: map[string]string{"call": name, "reason": reason, "address": from.String()},
		}
		if sb, err := s.store.SandboxByAddress(ctx, from); err == nil {
			e.SandboxID, e.JobID = sb.ID, sb.JobID
		}
		s.log.Warn("guest call denied", "call", name, "address", from.String(), "sandbox", e.SandboxID, "reason", reason)
		if err := s.store.AppendEvent(ctx, e); err != nil {
			s.log.Error("record denial", "err", err)
		}
	}
	return fault.New(fault.Denied, "%s", reason)
}

// ownJob gives the job named in the call if it is the sandbox's own. Another
// sandbox's job and none at all look the same from inside.
func (s *Server) ownJob(ctx context.Context, sb lab.Sandbox, id, name string) (lab.Job, error) {
	j, err := s.store.Job(ctx, id)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return lab.Job{}, fmt.Errorf("read job: %w", err)
	}
	if err != nil || j.SandboxID != sb.ID {
		return lab.Job{}, s.deny(ctx, sb.Address, name, "not this sandbox's job")
	}
	if id != sb.JobID { // a late word about an earlier one
		return lab.Job{}, errOver
	}
	return j, nil
}

// openJob is ownJob for calls that add to a job: one that has ended, or whose
// guest has said its last word, takes no more.
func (s *Server) openJob(ctx context.Context, sb lab.Sandbox, id, name string) (lab.Job, error) {
	j, err := s.ownJob(ctx, sb, id, name)
	if err == nil && over(j) {
		err = errOver
	}
	return j, err
}

var errOver = fault.New(fault.Precondition, "the job is over")

// holdFiles takes the lock under which a job's files change and its report
// closes them. errOver when the job ended while its call waited or received.
func (s *Server) holdFiles(ctx context.Context, jobID string) (release func(), err error) {
	release, err = s.locks.lock(ctx, "files "+jobID)
	if err != nil {
		return nil, err
	}
	j, err := s.store.Job(ctx, jobID)
	switch {
	case err != nil:
		err = fmt.Errorf("read job: %w", err)
	case over(j):
		err = errOver
	default:
		return release, nil
	}
	release()
	return nil, err
}

func over(j lab.Job) bool { return j.State.Ended() || j.Reported != nil }

// decodeBody reads a JSON body. Fields that this build does not know are left:
// the runner in the image may be newer than the daemon.
func decodeBody(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return tooLarge("body is larger than %d bytes", api.MaxBody)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "read body: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fault.New(fault.Invalid, "body is not valid: %w", err)
	}
	return nil
}

func answer(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fault.New(fault.Internal, "encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the guest is gone if this fails
	return nil
}
