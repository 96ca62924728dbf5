package settle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/fault"
)

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

func TestShare(t *testing.T) {
	l := layout.Layout{Root: t.TempDir()}
	read := func(user, idle, guest int) times {
		put(t, l.At("/proc/stat"), fmt.Sprintf("cpu  %d 0 0 %d 0 0 0 0 %d 0\ncpu0 9 9 9 9\n", user, idle, guest), 0o644)
		return cpuTimes(l)
	}
	for _, c := range []struct {
		from, to times
		want     float64
	}{
		{read(100, 100, 0), read(100, 200, 0), 0},
		{read(100, 100, 0), read(150, 150, 50), 0.5},
		{read(100, 100, 0), read(100, 100, 0), 1}, // no time has passed
		{times{}, times{}, 1},
	} {
		if got := share(c.from, c.to); got != c.want {
			t.Errorf("from %v to %v: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

// A guest that did not boot is no template; one that did keeps no host key.
func TestRun(t *testing.T) {
	for state, c := range map[string]struct {
		class fault.Class
		key   bool
	}{"running": {"", false}, "degraded": {"", false}, "offline": {fault.Precondition, true}} {
		t.Run(state, func(t *testing.T) {
			bin := t.TempDir()
			put(t, bin+"/systemctl", "#!/bin/sh\nif [ \"$1\" = is-system-running ]; then echo "+state+"; exit 1; fi\n", 0o755)
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			l := layout.Layout{Root: t.TempDir()}
			put(t, l.HostKey(), "key", 0o600)
			put(t, l.HostKey()+".pub", "key", 0o600)
			rehearsed, enough := false, errors.New("far enough")
			err := Run(t.Context(), l, hclog.NewNullLogger(), func() error { rehearsed = true; return enough })
			if c.class == "" && (!errors.Is(err, enough) || !rehearsed) || c.class != "" && !errors.Is(err, c.class) {
				t.Errorf("error %v", err)
			}
			for _, path := range []string{l.HostKey(), l.HostKey() + ".pub"} {
				if _, err := os.Stat(path); (err == nil) != c.key {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
}
