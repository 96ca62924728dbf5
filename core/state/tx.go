package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// queryer is what both a transaction and the pool of readers can do.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// tx is one writing transaction. Its events are written with it, and those who
// watch are woken once it is committed.
type tx struct {
	*sql.Tx
	now     time.Time
	touched map[string]bool // sandbox ids; "" for anything else
}

// write runs f in one transaction. f must only read and write through the tx.
func (s *Store) write(ctx context.Context, what string, f func(ctx context.Context, t *tx) error) error {
	err := s.transact(ctx, f)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && unable(err) {
		s.failed.Store(time.Now().UnixMilli())
	}
	return fmt.Errorf("%s: %w", what, classify(err))
}

func (s *Store) transact(ctx context.Context, f func(ctx context.Context, t *tx) error) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	raw, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	t := &tx{Tx: raw, now: time.Now(), touched: map[string]bool{}}
	// Statements do not watch the context: the driver starts a goroutine for each
	// that does. They find the lock taken, and the transaction ends with ctx.
	if err := f(context.WithoutCancel(ctx), t); err != nil {
		_ = raw.Rollback() // the context may have rolled it back already
		return ended(ctx, err)
	}
	if err := raw.Commit(); err != nil {
		return ended(ctx, err)
	}
	if len(t.touched) > 0 {
		s.watchers.wake(t.touched)
	}
	return nil
}

// ended gives the reason why a transaction is over that ctx has rolled back.
func ended(ctx context.Context, err error) error {
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// unable reports whether the database could not do what it was asked, as on a
// full disk, rather than refuse it.
func unable(err error) bool {
	var e sqlite3.Error
	if errors.As(err, &e) {
		return e.Code != sqlite3.ErrConstraint
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// WriteFailed is when the database last could not write, zero for never: what
// others wanted to leave in it then is missing.
func (s *Store) WriteFailed() time.Time { return fromMillis(s.failed.Load()) }

// emit writes an event with the transaction.
func (t *tx) emit(ctx context.Context, e lab.Event) error {
	if e.At.IsZero() {
		e.At = t.now
	}
	fields := ""
	if len(e.Fields) > 0 {
		b, err := json.Marshal(e.Fields)
		if err != nil {
			return err
		}
		fields = string(b)
	}
	t.touched[e.SandboxID] = true
	return t.exec(ctx, `INSERT INTO events (at, type, sandbox_id, job_id, operation, message, fields) VALUES (?,?,?,?,?,?,?)`,
		millis(e.At), e.Type, e.SandboxID, e.JobID, e.Operation, e.Message, fields)
}

func (t *tx) emitAll(ctx context.Context, events []lab.Event) error {
	for _, e := range events {
		if err := t.emit(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.ExecContext(ctx, query, args...)
	return err
}

// change is exec for an UPDATE that must hit exactly one row.
func (t *tx) change(ctx context.Context, query string, args ...any) (bool, error) {
	res, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// connect waits for a connection of a pool. Whoever has one reads without watching
// the context, see transact.
func connect(ctx context.Context, q queryer) (queryer, func(), error) {
	pool, ok := q.(*sql.DB)
	if !ok {
		return q, func() {}, nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	return conn, func() { _ = conn.Close() }, nil
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}

// classify gives an error of the driver its class; others pass unchanged.
func classify(err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case sqlite3.ErrConstraint:
		if e.ExtendedCode == sqlite3.ErrConstraintUnique || e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey {
			return fault.New(fault.Exists, "already there: %w", err)
		}
		return fault.New(fault.Invalid, "refused by the database: %w", err)
	case sqlite3.ErrFull:
		return fault.New(fault.Exhausted, "no space for the database: %w", err).WithHint("free disk space under data_dir")
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return fault.New(fault.Unavailable, "database is busy: %w", err)
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return fault.New(fault.Internal, "database is damaged: %w", err).
			WithHint("stop the daemon and put a backup of the file in its place")
	case sqlite3.ErrInterrupt:
		return fault.New(fault.Unavailable, "database call was interrupted: %w", err)
	}
	return fault.New(fault.Internal, "database: %w", err)
}

// scanner is one row, of *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

// lists are the commands that show what there is of a kind.
var lists = map[string]string{
	"job":       "agentlab job list shows those there are",
	"sandbox":   "agentlab sandbox list shows those there are, with --all also destroyed ones",
	"operation": "agentlab operation list shows those there are",
}

// one runs a query for a single row; no row is fault.NotFound naming what.
func one[T any](ctx context.Context, q queryer, scan func(scanner) (T, error), what, query string, args ...any) (v T, err error) {
	q, release, err := connect(ctx, q)
	if err != nil {
		return v, fmt.Errorf("read %s: %w", what, classify(err))
	}
	defer release()
	v, err = scan(q.QueryRowContext(context.WithoutCancel(ctx), query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		kind, _, _ := strings.Cut(what, " ")
		return v, fault.New(fault.NotFound, "there is no %s", what).WithResource("%s", what).WithHint("%s", lists[kind])
	}
	if err != nil {
		return v, fmt.Errorf("read %s: %w", what, classify(err))
	}
	return v, nil
}

// many runs a query for any number of rows.
func many[T any](ctx context.Context, q queryer, scan func(scanner) (T, error), what, query string, args ...any) (out []T, err error) {
	q, release, err := connect(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, classify(err))
	}
	defer release()
	rows, err := q.QueryContext(context.WithoutCancel(ctx), query, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, classify(err))
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", what, err)
		}
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", what, classify(err))
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, classify(err))
	}
	return out, nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}
