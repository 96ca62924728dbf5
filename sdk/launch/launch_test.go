package launch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// record is a log that tests read.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// await waits until the log holds text.
func (r *record) await(t *testing.T, text string) {
	t.Helper()
	for range 500 {
		if strings.Contains(r.String(), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no %q in the log:\n%.4000s", text, r)
}

func testSpec(t *testing.T, mode string, w io.Writer) launch.Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("", "al")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, _ := os.ReadDir(run)
		if len(left) > 0 {
			t.Errorf("%d entries left in the run folder", len(left))
		}
		_ = os.RemoveAll(run)
	})
	return launch.Spec{
		Path: self, Kind: "secrets", Name: "toy", RunDir: run,
		Env: []string{"PATH=/usr/bin:/bin", "LANG=C", modeKey + "=" + mode},
		Log: hclog.New(&hclog.LoggerOptions{Output: w, Level: hclog.Debug, JSONFormat: true}),
	}
}

func start(t *testing.T, spec launch.Spec) (*launch.Process, *secrets.Client) {
	t.Helper()
	p, err := launch.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	base := plugin.NewClient(p.Conn())
	if _, _, err := base.Configure(t.Context(), plugin.HostContext{Kind: plugin.Secrets}, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	return p, secrets.NewClient(p.Conn())
}

func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		if !alive(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d lives on", pid)
}

func TestCleanSurroundings(t *testing.T) {
	t.Setenv("DAEMON_SECRET", "hunter2")
	_, driver := start(t, testSpec(t, "serve", io.Discard))
	env, err := driver.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		switch {
		case key == "PATH", key == "LANG", key == modeKey, key == plugin.CookieKey, strings.HasPrefix(key, "PLUGIN_"):
		default:
			t.Errorf("plugin sees %s", e)
		}
	}
	got, err := driver.Describe(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if got.File != "agentlab-plugin" || got.Version != "/" { // comm has 15 bytes
		t.Errorf("called %q, in folder %q", got.File, got.Version)
	}
	for _, target := range got.Keys {
		// The Go runtime of the plugin itself watches its cgroup.
		if strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/proc/") && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			t.Errorf("open file %s was inherited", target)
		}
	}
}

func TestMessagesUpToTheLimit(t *testing.T) {
	_, driver := start(t, testSpec(t, "serve", io.Discard))
	b, err := driver.Open(t.Context(), "big", "")
	if err != nil || len(b.Document.Reveal()) != 32<<20 {
		t.Errorf("got %d bytes, %v", len(b.Document.Reveal()), err)
	}
	if _, err := driver.Open(t.Context(), strings.Repeat("n", 8<<20), ""); err != nil {
		t.Error(err)
	}
}

func TestPanicEndsOnlyTheCall(t *testing.T) {
	log := &record{}
	p, driver := start(t, testSpec(t, "serve", log))
	_, err := driver.Open(t.Context(), "panic", "")
	if !errors.Is(err, fault.Internal) || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("got %v", err)
	}
	log.await(t, "call panicked")
	if _, err := driver.Open(t.Context(), "x", ""); err != nil {
		t.Errorf("after the panic: %v", err)
	}
	if !alive(p.PID()) {
		t.Error("plugin died")
	}
}

func TestOutputIsLogged(t *testing.T) {
	log := &record{}
	_, driver := start(t, testSpec(t, "odd", log))
	log.await(t, "after the long line")
	log.await(t, `"@level":"error","@message":"disk is full"`)
	for _, bundle := range []string{"log", "print"} {
		if _, err := driver.Open(t.Context(), bundle, ""); err != nil {
			t.Fatal(err)
		}
	}
	log.await(t, "bundle opened")
	log.await(t, "printed last")
	if strings.ContainsRune(log.String(), 0x1b) || !strings.Contains(log.String(), "cleared") {
		t.Error("terminal escape came through, or its line was lost")
	}
}

func TestStopLetsCallsFinish(t *testing.T) {
	p, driver := start(t, testSpec(t, "serve", io.Discard))
	result := make(chan error, 1)
	go func() {
		_, err := driver.Open(context.WithoutCancel(t.Context()), "slow", "")
		result <- err
	}()
	time.Sleep(100 * time.Millisecond)
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("the running call ended with %v", err)
	}
	if e := p.Exit(); e.Code != 0 || e.Signal != "" {
		t.Errorf("plugin %s:\n%s", e, e.Output)
	}
	if _, err := driver.Open(t.Context(), "x", ""); !errors.Is(err, fault.Unavailable) {
		t.Errorf("call to a stopped plugin: %v", err)
	}
}

func TestStopOfAStoppedProcessIsBounded(t *testing.T) {
	p, _ := start(t, testSpec(t, "serve", io.Discard))
	if err := unix.Kill(p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !stopped(t, p.PID()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process does not stop")
		}
	}
	began := time.Now()
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("took %s", took)
	}
	if e := p.Exit(); e.Signal != "SIGKILL" {
		t.Errorf("plugin %s", e)
	}
}

// stopped tells whether no thread runs any more. The signal alone does not say so: a
// thread may answer another call before it takes notice.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of process %d: %d, %v", pid, len(threads), err)
	}
	for _, stat := range threads {
		b, err := os.ReadFile(stat)
		_, rest, _ := strings.Cut(string(b), ") ")
		if err != nil || !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return true
}

func TestNothingOfTheGroupSurvives(t *testing.T) {
	p, driver := start(t, testSpec(t, "serve", io.Discard))
	b, err := driver.Open(t.Context(), "spawn", "")
	if err != nil {
		t.Fatal(err)
	}
	grandchild, _ := strconv.Atoi(b.Version)
	if !alive(grandchild) {
		t.Fatal("grandchild never lived")
	}
	if err := unix.Kill(p.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	awaitGone(t, grandchild)
	if e := p.Exit(); e.Signal != "SIGKILL" || e.Code != -1 {
		t.Errorf("plugin %s", e)
	}
}

func TestStartErrorsExplain(t *testing.T) {
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	tests := map[string]struct {
		ctx  context.Context
		want []string
	}{
		"exit":    {t.Context(), []string{"start plugin secrets toy", "status 3", "cannot read /etc/thing"}},
		"chatter": {t.Context(), []string{"Welcome to my plugin!"}},
		"silent":  {short, []string{"not ready"}},
	}
	for mode, tt := range tests {
		t.Run(mode, func(t *testing.T) {
			began := time.Now()
			_, err := launch.Start(tt.ctx, testSpec(t, mode, io.Discard))
			if !errors.Is(err, fault.Unavailable) || fault.HintOf(err) == "" {
				t.Fatalf("got %v, hint %q", err, fault.HintOf(err))
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %q", want, err)
				}
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestStartedByHand(t *testing.T) {
	spec := testSpec(t, "serve", io.Discard)
	out, err := runByHand(t, spec.Path, "--version")
	if err != nil || out != "agentlab-plugin-toy 0.0.1\n" {
		t.Errorf("--version: %q, %v", out, err)
	}
	out, err = runByHand(t, spec.Path)
	if err == nil || !strings.Contains(out, "is a plugin of AgentLab") || !strings.Contains(out, `plugin "secrets" "toy"`) {
		t.Errorf("by hand: %q, %v", out, err)
	}
}

func TestRunFolderTooLong(t *testing.T) {
	spec := testSpec(t, "serve", io.Discard)
	spec.RunDir = filepath.Join("/tmp", strings.Repeat("long", 20))
	if _, err := launch.Start(t.Context(), spec); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestCleanRunDirTakesOnlyWhatIsOurs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"p123/plugin-dir4", "p5", "p5x", "precious", "p"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := launch.CleanRunDir(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if got := strings.Join(left, " "); got != "p p5x precious" {
		t.Errorf("left are %s", got)
	}
}
