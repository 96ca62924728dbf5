package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// interrupted is a job run that a test interrupts.
type interrupted struct {
	cmd      *exec.Cmd
	out, err syncBuffer
	temp     string // its TMPDIR
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startRun starts job run with a repository of its own.
func startRun(t *testing.T, socket, repo string, env []string, task string) *interrupted {
	t.Helper()
	r := &interrupted{temp: t.TempDir()}
	r.cmd = exec.Command("agentlab", "job", "run", "--repo", repo, "--profile", "plain", "--task", task)
	r.cmd.Env = append(append(os.Environ(), "AGENTLAB_SOCKET="+socket, "TMPDIR="+r.temp), env...)
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.WaitDelay = &r.out, &r.err, 5*time.Second
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	return r
}

// interrupt sends Ctrl-C.
func (r *interrupted) interrupt(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
}

// ends waits for the end, which must have this code and these words on standard
// error, and leave nothing in the temporary directory.
func (r *interrupted) ends(t *testing.T, code int, words ...string) {
	t.Helper()
	_ = r.cmd.Wait()
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	for _, w := range words {
		if ok, err := regexp.MatchString(w, r.err.String()); err != nil || !ok {
			t.Errorf("standard error lacks %q", w)
		}
	}
	if left, _ := os.ReadDir(r.temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if t.Failed() {
		t.Fatalf("standard error:\n%s", r.err.String())
	}
}

var (
	goesOn   = `stopped following; the job goes on\nhint: follow it with: agentlab job logs -f (job_\w+)    end it with: agentlab job cancel job_\w+\n$`
	noneLeft = `error: interrupted before there was a job; nothing was started and nothing is left\n$`
)

// Ctrl-C, at whatever stage, leaves the job alone once there is one, and nothing
// at all before.
func TestInterruptedRuns(t *testing.T) {
	t.Parallel()
	sim := testkit.NewSim(t)
	sim.Start(t)
	repo := newRepo(t)
	// What the stages after the job's beginning wait for, and a word that shows them.
	for _, tc := range []struct{ stage, hold, shown string }{
		{"queued", "network.attach", `  queued  `},
		{"provisioning", "vm.create", `  attach-network  `},
		{"running", "", `  agent  `},
	} {
		t.Run(tc.stage, func(t *testing.T) {
			if tc.hold != "" {
				hold(t, sim, tc.hold)
			}
			r := startRun(t, sim.Socket(), repo, nil, "sim:print=working sim:sleep=1s sim:print=done sim:exit=3")
			testkit.Eventually(t, 20*time.Second, tc.stage, func() bool { return regexp.MustCompile(tc.shown).MatchString(r.err.String()) })
			r.interrupt(t)
			r.ends(t, exitCancelled, goesOn)
			release(t, sim)
			takenUp(t, sim, regexp.MustCompile(goesOn).FindStringSubmatch(r.err.String())[1])
		})
	}
	t.Run("destroying", func(t *testing.T) {
		hold(t, sim, "vm.destroy")
		r := startRun(t, sim.Socket(), repo, nil, "sim:print=working sim:print=done sim:exit=3")
		testkit.Eventually(t, 20*time.Second, "destroying", func() bool { return strings.Contains(r.err.String(), "  FAILED") })
		r.interrupt(t)
		r.ends(t, 3, `exit code: +3\n`, `its sandbox is still being put away: agentlab sandbox show sbx_\w+\n$`)
		release(t, sim)
		gone(t, sim)
	})
}

// Before there is a job.
func TestInterruptedBeginnings(t *testing.T) {
	t.Parallel()
	sim := testkit.NewSim(t)
	sim.Start(t)
	nothing := func(t *testing.T) {
		t.Helper()
		if jobs := runCLI(sim.Socket(), "job list"); !strings.Contains(jobs.Stdout, `"jobs": []`) {
			t.Errorf("there is a job: %s", jobs.Stdout)
		}
		testkit.Eventually(t, 10*time.Second, "no upload is left", func() bool {
			left, _ := filepath.Glob(sim.Dir + "/data/repos/*")
			return len(left) == 0
		})
	}
	t.Run("packing", func(t *testing.T) {
		bin, mark := slowGit(t)
		r := startRun(t, sim.Socket(), newRepo(t), []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, "t")
		testkit.Eventually(t, 20*time.Second, "packing", func() bool { return isFile(mark) })
		r.interrupt(t)
		r.ends(t, exitCancelled, noneLeft)
		nothing(t)
	})
	t.Run("upload", func(t *testing.T) {
		repo := newRepo(t)
		big := make([]byte, 8<<20)
		_, _ = rand.Read(big)
		if err := os.WriteFile(filepath.Join(repo, "big"), big, 0o600); err != nil {
			t.Fatal(err)
		}
		git(t, repo, "add", "big")
		git(t, repo, "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "big")
		p := slowSocket(t, sim.Socket(), "POST /v1/repos", true)
		r := startRun(t, p.path, repo, nil, "t")
		<-p.held
		testkit.Eventually(t, 20*time.Second, "the upload has begun", func() bool {
			begun, _ := filepath.Glob(sim.Dir + "/data/repos/.part-*")
			return len(begun) == 1
		})
		r.interrupt(t)
		r.ends(t, exitCancelled, noneLeft)
		close(p.release)
		nothing(t)
	})
	t.Run("asking", func(t *testing.T) {
		p := slowSocket(t, sim.Socket(), "POST /v1/jobs HTTP", false)
		r := startRun(t, p.path, newRepo(t), nil, "sim:print=working sim:print=done sim:exit=3")
		<-p.held
		r.interrupt(t)
		testkit.Eventually(t, 10*time.Second, "word of the wait", func() bool {
			return strings.Contains(r.err.String(), "waiting for the daemon to say whether there is a job")
		})
		close(p.release)
		r.ends(t, exitCancelled, goesOn)
		takenUp(t, sim, regexp.MustCompile(goesOn).FindStringSubmatch(r.err.String())[1])
	})
	t.Run("asking, and impatient", func(t *testing.T) {
		p := slowSocket(t, sim.Socket(), "POST /v1/jobs HTTP", false)
		r := startRun(t, p.path, newRepo(t), nil, "sim:print=working")
		<-p.held
		r.interrupt(t)
		testkit.Eventually(t, 10*time.Second, "word of the wait", func() bool { return strings.Contains(r.err.String(), "Ctrl-C again does not wait") })
		r.interrupt(t)
		_ = r.cmd.Wait()
		if r.cmd.ProcessState.Exited() {
			t.Errorf("ended with %d, not by the second signal", r.cmd.ProcessState.ExitCode())
		}
		close(p.release)
	})
}

// takenUp follows an interrupted run's job to its end: all its output, its code.
func takenUp(t *testing.T, sim *testkit.Sim, job string) {
	t.Helper()
	cmd := exec.Command("agentlab", "job", "logs", "-f", job) // the one that is tested, not the one in bin
	cmd.Env = append(os.Environ(), "AGENTLAB_SOCKET="+sim.Socket())
	got := testkit.Capture(cmd)
	if got.Code != 3 || !strings.Contains(got.Stdout, "working\ndone\n") || !strings.Contains(got.Stderr, "exit code:  3\n") {
		t.Errorf("job logs -f ended with %d: %s%s", got.Code, got.Stdout, got.Stderr)
	}
	gone(t, sim)
}

func gone(t *testing.T, sim *testkit.Sim) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, "no sandbox is left", func() bool {
		return strings.Contains(runCLI(sim.Socket(), "sandbox list").Stdout, `"sandboxes": []`)
	})
}

// hold makes the plugin's next call of this kind wait; release lets it, and what
// repeats it, through.
func hold(t *testing.T, sim *testkit.Sim, op string) {
	t.Helper()
	err := sim.World.SetFaults(t.Context(), world.Fault{Op: op, Do: world.Delay, For: world.Duration(1500 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
}

func release(t *testing.T, sim *testkit.Sim) {
	t.Helper()
	if err := sim.World.SetFaults(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// slowGit is a directory with a git that never ends making a bundle, and the
// file that shows it has begun.
func slowGit(t *testing.T) (bin, mark string) {
	t.Helper()
	real, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	bin = t.TempDir()
	mark = filepath.Join(bin, "begun")
	script := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in *' bundle '*) : >'%s'; exec sleep 60 ;; esac\nexec '%s' \"$@\"\n", mark, real)
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin, mark
}

// gate is a socket in front of the daemon's that holds one exchange.
type gate struct {
	path    string
	held    chan struct{} // closed when it holds
	release chan struct{} // close it to go on
}

// slowSocket holds the request that contains the words, behind its beginning, or
// its answer.
func slowSocket(t *testing.T, daemon, words string, request bool) *gate {
	t.Helper()
	g := &gate{path: filepath.Join(t.TempDir(), "s"), held: make(chan struct{}), release: make(chan struct{})}
	ln, err := net.Listen("unix", g.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = ln.Close(); wait.Wait() })
	wait.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { g.pass(ctx, conn, daemon, words, request) })
		}
	})
	return g
}

func (g *gate) pass(ctx context.Context, conn net.Conn, daemon, words string, request bool) {
	defer conn.Close()
	up, err := net.Dial("unix", daemon)
	if err != nil {
		return
	}
	defer up.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close(); _ = up.Close() })
	defer stop()
	asked := make(chan struct{})
	go func() {
		defer up.Close()
		buf := make([]byte, 32<<10)
		for seen := false; ; {
			n, err := conn.Read(buf)
			_, writeErr := up.Write(buf[:n])
			if !seen && bytes.Contains(buf[:n], []byte(words)) {
				seen = true
				close(asked)
				if request {
					g.wait(ctx)
				}
			}
			if err != nil || writeErr != nil {
				return
			}
		}
	}()
	first := make([]byte, 1)
	for {
		if n, err := up.Read(first); err != nil || n == 0 {
			return
		}
		select {
		case <-asked:
			if !request {
				g.wait(ctx)
			}
			asked = nil
		default:
		}
		if _, err := conn.Write(first); err != nil {
			return
		}
		if asked == nil {
			_, _ = io.Copy(conn, up)
			return
		}
	}
}

func (g *gate) wait(ctx context.Context) {
	close(g.held)
	select {
	case <-g.release:
	case <-ctx.Done():
	}
}
