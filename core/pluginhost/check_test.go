package pluginhost_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/pluginhost"
)

func TestCheckAsksNow(t *testing.T) {
	dir := t.TempDir()
	h := run(t, block(t, "secrets", fmt.Sprintf("folder = %q\n", dir)))
	ready(t, h)
	is := func(what string, state pluginhost.State, message string) {
		t.Helper()
		if s := h.Check(t.Context())[0]; s.State != state || !strings.Contains(s.Reason, message) || s.Name != "toy" || s.Version != "1.2.3" {
			t.Errorf("%s: %+v", what, s)
		}
	}
	is("well", pluginhost.Ready, "")
	time.Sleep(100 * time.Millisecond) // the look at its start is over, the next one far away
	if err := os.WriteFile(filepath.Join(dir, "unwell"), []byte("the key is public"), 0o600); err != nil {
		t.Fatal(err)
	}
	is("unwell", pluginhost.Degraded, "the key is public")
	if s := h.List()[0]; s.State != pluginhost.Ready {
		t.Skipf("its turn came meanwhile: %+v", s) // on a machine that is very slow
	}
	if err := os.Remove(filepath.Join(dir, "unwell")); err != nil {
		t.Fatal(err)
	}
	is("well again", pluginhost.Ready, "")

	pid := h.List()[0].PID
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGCONT) }()
	eventually(t, "all of it has stopped", func() bool { return stopped(t, pid) })
	began := time.Now()
	is("hanging", pluginhost.Degraded, "does not answer")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a plugin that hangs was waited for %v", took)
	}
}

func TestCheckDoesNotWaitForWhatIsDown(t *testing.T) {
	h := pluginhost.New(pluginhost.Config{Blocks: []pluginhost.Block{block(t, "secrets", "")}}, hclog.NewNullLogger())
	if s := h.Check(t.Context()); len(s) != 1 || s[0].State != pluginhost.Stopped {
		t.Errorf("status %+v", s)
	}
}
