package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// EventQuery narrows Events; the zero value is every event from now on.
type EventQuery struct {
	// After resumes behind this event id; nil starts with what happens next, 0
	// with the oldest event there is.
	After *int64
	// Without After: begin with the newest events, so many (at most 1000), with
	// those since a time, or with the later of the two.
	Tail      int
	Since     time.Time
	Once      bool // end when all that is there has come
	SandboxID string
	JobID     string
	Operation string
	Types     []string
}

// longestSilence is how long a stream may say nothing, heartbeats included,
// before it counts as dead. The daemon sends one every 15 s.
const longestSilence = 50 * time.Second

// Events streams events as they happen, each once and in order. It reconnects
// by itself and resumes where it was; it ends with an error when ctx ends, when
// the daemon refuses, or when it is gone for longer than Options.Patience.
func (c *Client) Events(ctx context.Context, q EventQuery) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		pace := retry{c: c}
		for {
			more := true
			err := c.eventsOnce(ctx, &q, pace.ok, func(e api.Event) bool {
				more = yield(e, nil)
				return more
			})
			if !more || err == nil {
				return
			}
			if err := pace.again(ctx, err); err != nil {
				yield(api.Event{}, err)
				return
			}
		}
	}
}

// eventsOnce reads one connection until it ends. While yield wants more it
// returns nil only when all has come that was asked for.
func (c *Client) eventsOnce(ctx context.Context, q *EventQuery, ok func(), yield func(api.Event) bool) error {
	v := url.Values{}
	setString(v, "sandbox", q.SandboxID)
	setString(v, "job", q.JobID)
	setString(v, "operation", q.Operation)
	for _, t := range q.Types {
		v.Add("type", t)
	}
	q.from(v)
	resp, err := c.open(ctx, "/v1/events", v, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	ok()
	watchdog := time.AfterFunc(c.silence, func() { _ = resp.Body.Close() })
	defer watchdog.Stop()
	err = readSSE(resp.Body, func(m sseMessage) (bool, error) {
		watchdog.Reset(c.silence)
		if m.hasID {
			q.After = &m.id
		}
		if m.data == "" {
			return true, nil
		}
		var e api.Event
		if err := json.Unmarshal([]byte(m.data), &e); err != nil {
			return false, fault.New(fault.Internal, "decode event %d: %w", m.id, err)
		}
		return yield(e), nil
	})
	switch {
	case ctx.Err() != nil:
		return c.connectError(ctx.Err())
	case err == nil && q.Once:
		return nil
	case err == nil:
		return c.connectError(io.EOF)
	case isFault(err):
		return err
	}
	return c.connectError(err)
}

// from says where the stream begins and whether it ends.
func (q EventQuery) from(v url.Values) {
	if q.After != nil {
		v.Set("after", strconv.FormatInt(*q.After, 10))
	} else {
		setInt(v, "tail", int64(q.Tail))
		if !q.Since.IsZero() {
			v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Once {
		v.Set("follow", "false")
	}
}

func isFault(err error) bool {
	_, ok := errors.AsType[*fault.Error](err)
	return ok
}

// sseMessage is one message, or with no data a sign of life.
type sseMessage struct {
	id    int64
	hasID bool
	data  string
}

// readSSE calls each for every message and comment until the stream ends or
// each says stop.
func readSSE(r io.Reader, each func(sseMessage) (bool, error)) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), 4<<20)
	var m sseMessage
	for sc.Scan() {
		line := sc.Text()
		if line != "" && line[0] != ':' {
			m.take(line)
			continue
		}
		if line != "" { // a comment: the stream lives
			if more, err := each(sseMessage{}); err != nil || !more {
				return err
			}
			continue
		}
		if m.hasID || m.data != "" {
			if more, err := each(m); err != nil || !more {
				return err
			}
		}
		m = sseMessage{}
	}
	return sc.Err()
}

func (m *sseMessage) take(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "id":
		if id, err := strconv.ParseInt(value, 10, 64); err == nil {
			m.id, m.hasID = id, true
		}
	case "data":
		if m.data != "" {
			m.data += "\n"
		}
		m.data += value
	}
}

func decode(r io.Reader, out any) error {
	if err := json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(out); err != nil {
		return fault.New(fault.Internal, "decode answer: %w", err)
	}
	return nil
}
