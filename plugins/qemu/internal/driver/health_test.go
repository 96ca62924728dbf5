package driver

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
)

// A QEMU that hangs must not have the plugin taken for dead.
func TestHealthIsToldInTime(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.config.QEMUBinary = filepath.Join(t.TempDir(), "qemu")
	testhost.Script(t, l.config.QEMUBinary, "exec sleep 30")
	d := l.driver()
	ctx, cancel := context.WithCancel(t.Context())
	checking := make(chan struct{})
	go func() { // with a deadline of its own, which is longer
		defer close(checking)
		_, _ = d.CheckHost(ctx)
	}()
	time.Sleep(100 * time.Millisecond)
	begun := time.Now()
	if why := d.Health(t.Context()); why == "" || time.Since(begun) > 5*time.Second {
		t.Errorf("health %q after %s", why, time.Since(begun))
	}
	cancel()
	<-checking
}
