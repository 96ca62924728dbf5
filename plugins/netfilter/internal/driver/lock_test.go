package driver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
)

// TestProcessesWaitForOneAnother: two drivers with one state folder are as two
// processes of the plugin, because the lock is that of an open file.
func TestProcessesWaitForOneAnother(t *testing.T) {
	cfg := Config{StateDir: t.TempDir()}
	old, next := New(cfg, hclog.NewNullLogger()), New(cfg, hclog.NewNullLogger())
	release, err := old.hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := next.hold(ctx); !errors.Is(err, fault.Timeout) {
		t.Fatalf("while the old one changes something: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, release)
	release, err = next.hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if release, err = next.hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	release()
}
