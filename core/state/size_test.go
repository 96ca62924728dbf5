package state

import (
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/lab"
)

// TestFrequentCallsDoNotSlowDown compares each call that runs often with one
// scan of a large table: none may come near it.
func TestFrequentCallsDoNotSlowDown(t *testing.T) {
	s := openIn(t, fastDir(t))
	ctx := t.Context()
	sb := putSandbox(t, s, "a")
	fill := `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) `
	for _, query := range []string{
		fill + `INSERT INTO events (at, type, sandbox_id, message) SELECT i, 'x', 'sbx_' || (i % 1000), 'text' FROM n`,
		fill + `INSERT INTO operations (id, kind, subject, state, created_at, updated_at, ended_at)
			SELECT 'op_' || i, 'run-job', '` + sb.ID + `', 'DONE', i, i, i FROM n`,
	} {
		_, err := s.writer.ExecContext(ctx, query)
		check(t, err)
	}
	best := func(f func() error) time.Duration {
		least := time.Hour
		for range 5 {
			began := time.Now()
			check(t, f())
			least = min(least, time.Since(began))
		}
		return least
	}
	scan := best(func() error {
		var n int
		return s.reader.QueryRowContext(ctx, `SELECT count(*) FROM events WHERE message = 'none'`).Scan(&n)
	})
	for name, call := range map[string]func() error{
		"counts":          func() error { _, err := s.Counts(ctx); return err },
		"open operations": func() error { _, err := s.Operations(ctx, OperationFilter{Open: true}); return err },
		"failed operations": func() error {
			_, err := s.Operations(ctx, OperationFilter{States: []lab.OperationState{lab.OpFailed}, Limit: 5})
			return err
		},
		"events of sandbox": func() error {
			_, err := s.Events(ctx, EventFilter{SandboxID: "sbx_7", Limit: 20, Newest: true})
			return err
		},
		"events after":      func() error { _, err := s.Events(ctx, EventFilter{After: 199990}); return err },
		"by address":        func() error { _, err := s.SandboxByAddress(ctx, sb.Address); return err },
		"idle sandboxes":    func() error { _, err := s.IdleSandboxes(ctx, lab.SandboxReady); return err },
		"expired sandboxes": func() error { _, err := s.ExpiredSandboxes(ctx, 10); return err },
		"stranded jobs":     func() error { _, err := s.StrandedJobs(ctx); return err },
	} {
		if took := best(call); took > scan/4 {
			t.Errorf("%s takes %s; a scan of 200000 rows takes %s", name, took, scan)
		} else {
			t.Logf("%s: %s (scan %s)", name, took, scan)
		}
	}
}
