package rootexec

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

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

func sh(script string, env ...string) channel.Exec {
	return channel.Exec{Argv: []string{"sh", "-c", script}, Env: env}
}

func TestRun(t *testing.T) {
	l := layout.Layout{Root: t.TempDir()} // has no control groups
	for name, c := range map[string]struct {
		e         channel.Exec
		in        string
		code      int
		out, errs string
	}{
		"streams":     {e: sh(`cat; echo bad >&2; exit 3`), in: "in", code: 3, out: "in", errs: "bad\n"},
		"signal":      {e: sh(`kill -9 $$`), code: 137},
		"environment": {e: sh(`echo $A $HOME $PWD`, "A=b"), out: "b /root /\n"},
		"directory":   {e: channel.Exec{Argv: []string{"pwd"}, Dir: "/usr"}, out: "/usr\n"},
	} {
		var out, errs bytes.Buffer
		code, err := Run(t.Context(), l, c.e, strings.NewReader(c.in), &out, &errs)
		if err != nil || code != c.code || out.String() != c.out || errs.String() != c.errs {
			t.Errorf("%s: code %d, %v, %q, %q", name, code, err, out.String(), errs.String())
		}
	}
	for name, e := range map[string]channel.Exec{"name": {Argv: []string{"no-such-program"}}, "path": {Argv: []string{"/no/such"}}} {
		if _, err := Run(t.Context(), l, e, nil, nil, nil); !errors.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Run(t.Context(), l, channel.Exec{Argv: []string{"/etc/passwd"}}, nil, nil, nil); !errors.Is(err, fault.Precondition) {
		t.Errorf("no program: %v", err)
	}
}

// What a program leaves running does not outlive it, nor its caller: by control
// groups also what left its process group, and without them the group.
func TestNothingIsLeft(t *testing.T) {
	roots := map[string]layout.Layout{"process group": {Root: t.TempDir()}}
	real := layout.Layout{Root: "/"}
	if g := newGroup(real); g != nil {
		g.end()
		roots["control group"] = real
	}
	for name, l := range roots {
		for end, script := range map[string]string{"ended": `%s & echo $!`, "cancelled": `%s & echo $!; sleep 60`} {
			t.Run(name+" "+end, func(t *testing.T) {
				child := "sleep 61"
				if name == "control group" {
					child = "setsid sleep 61"
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var out pidWriter
				out.seen = func() {
					if end == "cancelled" {
						cancel()
					}
				}
				began := time.Now()
				_, err := Run(ctx, l, sh(strings.Replace(script, "%s", child, 1)), nil, &out, nil)
				if (err != nil) != (end == "cancelled") {
					t.Errorf("error %v", err)
				}
				if took := time.Since(began); took > 8*time.Second {
					t.Errorf("took %v", took)
				}
				if out.pid == 0 {
					t.Fatal("no child")
				}
				for deadline := time.Now().Add(5 * time.Second); alive(out.pid); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						_ = syscall.Kill(out.pid, syscall.SIGKILL)
						t.Fatal("the child runs on")
					}
				}
			})
		}
	}
}

// alive: a zombie that nobody waits for is dead.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// pidWriter takes the line with a child's number.
type pidWriter struct {
	text strings.Builder
	pid  int
	seen func()
}

func (w *pidWriter) Write(p []byte) (int, error) {
	w.text.Write(p)
	if n, err := strconv.Atoi(strings.TrimSpace(w.text.String())); err == nil && strings.HasSuffix(w.text.String(), "\n") {
		w.pid = n
		w.seen()
	}
	return len(p), nil
}

// The groups that a killed runner left are removed, others not.
func TestSweep(t *testing.T) {
	l := layout.Layout{Root: t.TempDir()}
	left, other := l.At("/sys/fs/cgroup/agentlab-exec-x"), l.At("/sys/fs/cgroup/agentlab-job")
	if err := errors.Join(os.MkdirAll(left, 0o755), os.MkdirAll(other, 0o755)); err != nil {
		t.Fatal(err)
	}
	Sweep(l)
	if _, err := os.Stat(left); err == nil {
		t.Error("the group is still there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("a group of somebody else is gone")
	}
}
