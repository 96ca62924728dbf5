package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	heartbeat  = 15 * time.Second
	eventBatch = 500
)

// eventStream sends events as they are committed. It first sends the id it
// starts behind, so that a reader that is cut off before the first event
// resumes at the right place.
func (s *Server) eventStream(w http.ResponseWriter, r *http.Request) error {
	f, err := s.eventFilter(r)
	if err != nil {
		return err
	}
	wake, stop := s.cfg.Store.Watch()
	defer stop()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	out := slowWriter{w}
	if err := sse(out, fmt.Appendf(nil, "id: %d\n\n", f.After)); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		if f.After, err = s.sendEvents(r, out, f); err != nil {
			return err
		}
		select {
		case <-wake:
		case <-beat.C:
			if err := sse(out, []byte(": alive\n\n")); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		case <-s.closing:
			return sse(out, []byte(": the daemon stops\n\n"))
		}
	}
}

func (s *Server) eventFilter(r *http.Request) (state.EventFilter, error) {
	q := r.URL.Query()
	f := state.EventFilter{
		JobID: q.Get("job"), Operation: q.Get("operation"), Types: q["type"], Limit: eventBatch,
	}
	if ref := q.Get("sandbox"); ref != "" {
		sb, err := s.cfg.Store.FindSandbox(r.Context(), ref)
		if err != nil {
			return f, err
		}
		f.SandboxID = sb.ID
	}
	resume := r.Header.Get("Last-Event-ID")
	switch {
	case resume != "":
		id, err := strconv.ParseInt(resume, 10, 64)
		if err != nil || id < 0 {
			return f, fault.New(fault.Invalid, "Last-Event-ID %q is not an event id", resume)
		}
		f.After = id
	case q.Has("after"):
		f.After = queryInt(r, "after", 0)
	default:
		newest, err := s.newestEvents(r, state.EventFilter{Limit: 1})
		if err != nil {
			return f, err
		}
		if len(newest) > 0 {
			f.After = newest[0].ID
		}
	}
	return f, nil
}

// sendEvents writes all that is there behind f.After and returns where it is
// now.
func (s *Server) sendEvents(r *http.Request, w http.ResponseWriter, f state.EventFilter) (int64, error) {
	for {
		batch, err := s.cfg.Store.Events(r.Context(), f)
		if err != nil {
			return f.After, err
		}
		var buf bytes.Buffer
		for _, e := range batch {
			data, err := json.Marshal(apiEvent(e))
			if err != nil {
				return f.After, fault.New(fault.Internal, "encode event %d: %w", e.ID, err)
			}
			fmt.Fprintf(&buf, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Type, data)
			f.After = e.ID
		}
		if buf.Len() > 0 {
			if err := sse(w, buf.Bytes()); err != nil {
				return f.After, err
			}
		}
		if len(batch) < eventBatch {
			return f.After, nil
		}
	}
}

func sse(w http.ResponseWriter, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return fault.New(fault.Unavailable, "send event: %w", err)
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return fault.New(fault.Unavailable, "send event: %w", err)
	}
	return nil
}
