package crash_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// TestRunDirAfterKills: what a killed daemon leaves for its plugins is removed
// by the next.
func TestRunDirAfterKills(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	for range 3 {
		s.Start(t)
		s.Kill()
	}
	s.Start(t)
	if code := s.Term(t); code != 0 {
		t.Errorf("exit code %d on SIGTERM", code)
	}
	files, err := os.ReadDir(filepath.Join(s.Dir, "run", "p"))
	if err != nil || len(files) > 0 {
		t.Errorf("left in the run directory: %v, %v", files, err)
	}
}

// TestSameRunDir: a daemon with other data does not take over the socket of one
// that runs.
func TestSameRunDir(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	cfg := strings.Replace(s.Config(s.Plugins()), filepath.Join(s.Dir, "data"), filepath.Join(s.Dir, "other"), 1)
	cfg = strings.Replace(cfg, s.Guests.String(), s.Guests.Addr().Next().String()+":"+fmt.Sprint(s.Guests.Port()), 1)
	s.WriteConfig(t, cfg)
	cmd := s.Daemon()
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(out.String(), "another agentlabd uses "+filepath.Dir(s.Socket())) {
			t.Errorf("the second daemon: %v, %q", err, out.String())
		}
	case <-time.After(5 * time.Second):
		t.Errorf("a second daemon runs in the same run directory")
		_ = cmd.Process.Kill()
		<-ended
	}
	if _, err := s.Client.Host(t.Context()); err != nil {
		t.Errorf("the first daemon is not reached any more: %v", err)
	}
}
