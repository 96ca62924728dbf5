package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// pruneBatch is how many events one transaction of PruneEvents looks at: small
// enough that no other writer notices.
const pruneBatch = 500

const eventColumns = `id, at, type, sandbox_id, job_id, operation, message, fields`

func scanEvent(row scanner) (e lab.Event, err error) {
	var at int64
	var fields string
	if err := row.Scan(&e.ID, &at, &e.Type, &e.SandboxID, &e.JobID, &e.Operation, &e.Message, &fields); err != nil {
		return e, err
	}
	e.At = fromMillis(at)
	if fields != "" {
		err = json.Unmarshal([]byte(fields), &e.Fields)
	}
	return e, err
}

// EventFilter selects events; the zero value selects all.
type EventFilter struct {
	After     int64 // only ids above it
	SandboxID string
	JobID     string
	Operation string
	Types     []string
	Limit     int  // 0 is no limit
	Newest    bool // the last Limit events rather than the first
}

// Events lists in the order of ids. Ids ascend in the order of commits, so a
// reader that goes on after the last id it saw misses nothing.
func (s *Store) Events(ctx context.Context, f EventFilter) ([]lab.Event, error) {
	var w where
	if f.After > 0 {
		w.add("id > ?", f.After)
	}
	w.equal("sandbox_id", f.SandboxID)
	w.equal("job_id", f.JobID)
	w.equal("operation", f.Operation)
	in(&w, "type", f.Types)
	query := `SELECT ` + eventColumns + ` FROM events` + w.sql()
	switch {
	case f.Newest && f.Limit > 0:
		query = fmt.Sprintf("SELECT * FROM (%s ORDER BY id DESC LIMIT %d) ORDER BY id", query, f.Limit)
	case f.Limit > 0:
		query = fmt.Sprintf("%s ORDER BY id LIMIT %d", query, f.Limit)
	default:
		query += " ORDER BY id"
	}
	return many(ctx, s.reader, scanEvent, "events", query, w.args...)
}

// EventBefore gives an id such that the events above it are from t or later,
// and those up to it from before. It bisects, since ids ascend with time; where
// clocks of guests disagree, it is near.
func (s *Store) EventBefore(ctx context.Context, t time.Time) (int64, error) {
	bounds, err := one(ctx, s.reader, func(row scanner) (b [2]int64, err error) {
		return b, row.Scan(&b[0], &b[1])
	}, "events", `SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM events`)
	if err != nil {
		return 0, err
	}
	low, high := bounds[0]-1, bounds[1] // low is before t, or before all; above high none is
	for low < high {
		middle := low + (high-low+1)/2
		at, err := one(ctx, s.reader, func(row scanner) (at int64, err error) {
			return at, row.Scan(&at)
		}, "event", `SELECT at FROM events WHERE id <= ? ORDER BY id DESC LIMIT 1`, middle)
		switch {
		case errors.Is(err, fault.NotFound): // pruned meanwhile
			low = middle
		case err != nil:
			return 0, err
		case at < millis(t):
			low = middle
		default:
			high = middle - 1
		}
	}
	return low, nil
}

// AppendEvent writes one event.
func (s *Store) AppendEvent(ctx context.Context, e lab.Event) error {
	return s.write(ctx, "append event", func(ctx context.Context, t *tx) error { return t.emit(ctx, e) })
}

// PruneEvents removes a batch of the oldest events from before the given time
// and tells whether more may be left. The caller repeats it with pauses.
func (s *Store) PruneEvents(ctx context.Context, before time.Time) (more bool, err error) {
	err = s.write(ctx, "prune events", func(ctx context.Context, t *tx) error {
		res, err := t.ExecContext(ctx, `DELETE FROM events WHERE id IN (
			SELECT id FROM (SELECT id, at FROM events ORDER BY id LIMIT ?) WHERE at < ?)`, pruneBatch, millis(before))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		more = n == pruneBatch
		return err
	})
	return more, err
}
