package state

import (
	"context"
	"testing"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// TestPing: a transaction that does not end keeps the writer from beginning,
// while reading goes on as if nothing were.
func TestPing(t *testing.T) {
	s := open(t)
	check(t, s.Ping(t.Context()))
	block, err := s.writer.BeginTx(t.Context(), nil)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantClass(t, s.Ping(ctx), fault.Timeout)
	_, err = s.Sandboxes(t.Context(), SandboxFilter{})
	check(t, err)
	check(t, block.Rollback())
	check(t, s.Ping(t.Context()))
}
