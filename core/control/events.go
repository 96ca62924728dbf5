package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/lab"
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
		if r.URL.Query().Get("follow") == "false" {
			return nil
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
	f, err := s.subjectOf(r)
	if err != nil {
		return f, err
	}
	f.Operation, f.Types, f.Limit = q.Get("operation"), q["type"], eventBatch
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
		f.After, err = s.eventStart(r, f)
	}
	return f, err
}

// eventStart is the id behind which a stream begins that resumes nothing: the
// newest, or the later of what since and tail say.
func (s *Server) eventStart(r *http.Request, f state.EventFilter) (int64, error) {
	q := r.URL.Query()
	var since int64
	if q.Has("since") {
		t, err := time.Parse(time.RFC3339, q.Get("since"))
		if err != nil {
			return 0, fault.New(fault.Invalid, "parameter \"since\" is %q, not a time such as 2026-01-02T15:04:05Z", q.Get("since"))
		}
		if since, err = s.cfg.Store.EventBefore(r.Context(), t); err != nil {
			return 0, err
		}
		if !q.Has("tail") {
			return since, nil
		}
	}
	if f.Limit = int(queryInt(r, "tail", 0)); f.Limit > 0 {
		newest, err := s.newestEvents(r, f)
		if err != nil || len(newest) > 0 {
			return max(since, firstID(newest)-1), err
		}
	}
	newest, err := s.newestEvents(r, state.EventFilter{Limit: 1})
	return firstID(newest), err
}

func firstID(events []lab.Event) int64 {
	if len(events) == 0 {
		return 0
	}
	return events[0].ID
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
