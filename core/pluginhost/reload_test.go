package pluginhost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/sdk/fault"
)

// worded gives the block the words by which a reload compares it.
func worded(b pluginhost.Block, words string) pluginhost.Block {
	b.Words = strings.Fields(words)
	return b
}

// copied is the plugin's binary under another name.
func copied(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	in, err := os.Open(filepath.Join(pluginDir, "agentlab-plugin-toy"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func folderOf(t *testing.T, h *pluginhost.Host) string {
	t.Helper()
	b, err := h.Secrets().Open(t.Context(), "x", "")
	if err != nil {
		t.Fatal(err)
	}
	folder, _, _ := strings.Cut(strings.TrimPrefix(b.Document.Reveal(), `{"folder":"`), `"`)
	return folder
}

func TestReload(t *testing.T) {
	path := copied(t, "agentlab-plugin-toy")
	make := func(text, words string) pluginhost.Block {
		b := worded(block(t, "secrets", text), words)
		b.Path = path
		return b
	}
	h := run(t, make("folder = \"/a\"\n", "a"))
	ready(t, h)
	pid := func() int { return h.List()[0].PID }
	reload := func(what string, want string, blocks ...pluginhost.Block) {
		t.Helper()
		changed, diags := h.Reload(t.Context(), blocks)
		if got := strings.Join(changed, ", "); got != want || diags.HasErrors() {
			t.Errorf("%s: changed %q, want %q: %v", what, got, want, diags)
		}
	}
	first := pid()
	reload("nothing", "", make("# moved\nfolder = \"/a\"\n", "a"))
	if pid() != first {
		t.Error("a block that stays was replaced")
	}
	reload("another block", "secrets toy", make("folder = \"/b\"\n", "b"))
	second := pid()
	if got := folderOf(t, h); got != "/b" || second == first {
		t.Errorf("folder %s, process %d then %d", got, first, second)
	}

	changed, diags := h.Reload(t.Context(), []pluginhost.Block{make("folder = \"/c\"\n\nlimit = 1000\n", "c")})
	if len(changed) > 0 || !strings.Contains(diags.Error(), "agentlab.hcl:3") || !strings.Contains(diags.Error(), "out of range") {
		t.Errorf("a wrong block: %q, %v", changed, diags)
	}
	changed, diags = h.Reload(t.Context(), []pluginhost.Block{make("folder = \"/c\"\nmode = \"broken\"\n", "d")})
	if len(changed) > 0 || !strings.Contains(diags.Error(), "agentlab.hcl:99") || !strings.Contains(diags.Error(), "server refused") {
		t.Errorf("a block that cannot be configured: %q, %v", changed, diags)
	}
	if pid() != second || folderOf(t, h) != "/b" || h.List()[0].State != pluginhost.Ready {
		t.Errorf("after bad reloads: %+v", h.List()[0])
	}

	if err := os.Rename(copied(t, "agentlab-plugin-toy"), path); err != nil {
		t.Fatal(err)
	}
	reload("another binary", "secrets toy", make("folder = \"/b\"\n", "b"))
	if pid() == second {
		t.Error("a new binary is not in use")
	}
	reload("the same again", "", make("folder = \"/b\"\n", "b"))

	renamed := make("folder = \"/z\"\n", "z")
	renamed.Name = "other"
	reload("another name", "secrets other, secrets toy", renamed)
	if got := folderOf(t, h); got != "/z" || len(h.List()) != 1 || h.List()[0].Name != "other" {
		t.Errorf("folder %s, %+v", got, h.List())
	}
	reload("none", "secrets other")
	if _, err := h.Secrets().List(t.Context()); !errors.Is(err, fault.Unsupported) || len(h.List()) > 0 {
		t.Errorf("a plugin that went: %v", err)
	}
	reload("one again", "secrets toy", make("folder = \"/b\"\n", "b"))
	if got := folderOf(t, h); got != "/b" {
		t.Errorf("folder %s", got)
	}
}

// TestNoCallIsLostToARestart: while the process is replaced again and again, all
// calls are answered, also those of a plugin that may not run twice.
func TestNoCallIsLostToARestart(t *testing.T) {
	for _, name := range []string{"agentlab-plugin-toy", "agentlab-plugin-toy-alone"} {
		t.Run(name, func(t *testing.T) {
			b := block(t, "secrets", "folder = \"/f\"\n")
			b.Path = copied(t, name)
			h := run(t, b)
			ready(t, h)
			ctx, stop := context.WithCancel(t.Context())
			var calls atomic.Int64
			var wait sync.WaitGroup
			for range 4 {
				wait.Go(func() {
					for ctx.Err() == nil {
						if _, err := h.Secrets().Open(t.Context(), "x", ""); err != nil {
							t.Errorf("call %d: %v", calls.Load(), err)
							return
						}
						calls.Add(1)
						time.Sleep(time.Millisecond)
					}
				})
			}
			for range 5 {
				pid := h.List()[0].PID
				if err := h.Restart(t.Context(), "secrets"); err != nil || h.List()[0].PID == pid {
					t.Errorf("restart: %v", err)
				}
			}
			stop()
			wait.Wait()
			d, err := h.Detail("secrets")
			if err != nil || calls.Load() < 50 || len(d.Calls) != 1 || d.Calls[0].Failed > 0 || d.Calls[0].Retries > 0 || len(d.Crashes) > 0 {
				t.Errorf("%d calls, %+v, %v", calls.Load(), d.Calls, err)
			}
		})
	}
}

// TestPanicIsNamed: status and report say what a plugin died of, and hide what
// its configuration keeps secret.
func TestPanicIsNamed(t *testing.T) {
	h := run(t, block(t, "secrets", "folder = \"/f\"\ntoken = \"hunter2-hunter2\"\n"))
	ready(t, h)
	_, err := h.Secrets().Open(t.Context(), "crash", "")
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "ended with status 2: panic: boom") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the call: %v", err)
	}
	d, err := h.Detail("secrets")
	if err != nil || len(d.Crashes) != 2 || !strings.Contains(d.Crashes[0].Reason, "panic: boom [REDACTED]") || !strings.Contains(d.Crashes[0].Output, "goroutine ") {
		t.Errorf("reports %+v, %v", d.Crashes, err)
	}
	if strings.Contains(fmt.Sprintf("%+v", d), "hunter2") {
		t.Error("a secret is shown")
	}
}

// stopped reports whether no thread of the process runs any more: the signal
// takes a while on a busy machine.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads %q of %d: %v", threads, pid, err)
	}
	for _, path := range threads {
		if stat, err := os.ReadFile(path); err == nil && !strings.Contains(string(stat), ") T ") {
			return false
		}
	}
	return true
}

// TestStoppedProcessIsReplaced: one that is there but does nothing is noticed by
// who waits for it, killed with its group and replaced.
func TestStoppedProcessIsReplaced(t *testing.T) {
	h := run(t, block(t, "secrets", "folder = \"/f\"\n"))
	ready(t, h)
	pid := h.List()[0].PID
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of it has stopped", func() bool { return stopped(t, pid) })
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := h.Secrets().Open(ctx, "x", ""); !errors.Is(err, fault.Timeout) {
		t.Errorf("a call to it: %v", err)
	}
	eventually(t, "it is replaced", func() bool { s := h.List()[0]; return s.PID != pid && s.State == pluginhost.Ready })
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("that took %s", took)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the old process: %v", err)
	}
	if d, _ := h.Detail("secrets"); len(d.Crashes) != 1 || !strings.Contains(d.Crashes[0].Reason, "did not answer") {
		t.Errorf("reports %+v", d.Crashes)
	}
}

// TestReloadAddsAnExclusivePlugin: one that a reload brings has no predecessor
// that must end first.
func TestReloadAddsAnExclusivePlugin(t *testing.T) {
	h := run(t)
	b := worded(block(t, "secrets", "folder = \"/f\"\n"), "f")
	b.Path = copied(t, "agentlab-plugin-toy-alone")
	if changed, diags := h.Reload(t.Context(), []pluginhost.Block{b}); diags.HasErrors() || len(changed) != 1 {
		t.Fatalf("changed %q: %v", changed, diags)
	}
	if got := folderOf(t, h); got != "/f" {
		t.Errorf("folder %s", got)
	}
}

// TestReloadWaitsForTheOneThatLeaves: a plugin that comes back does not share its
// state folder with the process that still has calls.
func TestReloadWaitsForTheOneThatLeaves(t *testing.T) {
	b := worded(block(t, "secrets", "folder = \"/f\"\n"), "f")
	h := run(t, b)
	ready(t, h)
	pid := h.List()[0].PID
	ctx, cancel := context.WithCancel(t.Context())
	hung := make(chan error, 1)
	go func() {
		_, err := h.Secrets().Open(ctx, "hang", "")
		hung <- err
	}()
	time.Sleep(200 * time.Millisecond)
	if _, diags := h.Reload(t.Context(), nil); diags.HasErrors() {
		t.Fatal(diags)
	}
	soon, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	_, diags := h.Reload(soon, []pluginhost.Block{b})
	if !diags.HasErrors() || !strings.Contains(diags.Error(), "its process was not started: its earlier process has calls to finish") {
		t.Errorf("while a call runs: %v", diags)
	}
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, diags := h.Reload(t.Context(), []pluginhost.Block{b}); diags.HasErrors() {
		t.Fatal(diags)
	}
	<-hung
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the old process %d: %v", pid, err)
	}
	if got := folderOf(t, h); got != "/f" {
		t.Errorf("folder %s", got)
	}
}
