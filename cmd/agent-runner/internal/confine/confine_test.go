package confine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/confine"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

func run(t *testing.T, ctx context.Context, login layout.Login, grace time.Duration, script string) (int, string, error) {
	t.Helper()
	c, err := confine.New(t.Context(), layout.Layout{Root: t.TempDir()}, login)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := c.Run(ctx, confine.Command{Argv: []string{"/bin/sh", "-c", script}, Dir: "/", Env: os.Environ(), Output: &out, Grace: grace})
	return code, out.String(), err
}

func self() layout.Login { return layout.Login{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())} }

func TestRun(t *testing.T) {
	for script, want := range map[string]struct {
		code int
		out  string
	}{
		"echo a; echo b >&2; exit 3":            {3, "a\nb\n"},
		"kill -9 $$":                            {137, ""},
		"cat":                                   {0, ""},
		"sleep 0.2; cat /proc/$$/oom_score_adj": {0, "500\n"},
	} {
		code, out, err := run(t, t.Context(), self(), 0, script)
		if err != nil || code != want.code || out != want.out {
			t.Errorf("%q: %d %q %v", script, code, out, err)
		}
	}
}

func TestRunEnds(t *testing.T) {
	cause := errors.New("enough")
	for script, code := range map[string]int{
		"echo up; exec sleep 60":                           143,
		"trap 'exit 5' TERM; echo up; sleep 60 & wait":     5,
		"trap '' TERM; echo up; while :; do sleep 1; done": 137,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { time.Sleep(300 * time.Millisecond); cancel(cause) }()
		started := time.Now()
		got, _, err := run(t, ctx, self(), 500*time.Millisecond, script)
		if got != code || !errors.Is(err, cause) || time.Since(started) > 10*time.Second {
			t.Errorf("%q: %d %v after %v", script, got, err, time.Since(started))
		}
	}
}

// A program that ends must not leave children, nor wait for those that hold
// its output open.
func TestRunLeavesNothing(t *testing.T) {
	started := time.Now()
	code, out, err := run(t, t.Context(), self(), 0, "sleep 61 & echo $!")
	pid, _ := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || code != 0 || pid == 0 || time.Since(started) > 10*time.Second {
		t.Fatalf("%d %q %v", code, out, err)
	}
	for range 100 {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || zombie(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(b), ") Z ")
}

func TestRunAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	_, out, err := run(t, t.Context(), layout.Login{UID: 65534, GID: 65534}, 0, "id -u; id -G")
	if err != nil || out != "65534\n65534\n" {
		t.Errorf("%q %v", out, err)
	}
}
