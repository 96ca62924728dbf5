package pluginhost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/sdk/fault"
)

var pluginDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "al")
	if err == nil {
		pluginDir = dir
		build := exec.Command("go", "build", "-o", dir, "./testdata/agentlab-plugin-toy")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build plugin:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// block parses text as the config body of a plugin block in agentlab.hcl.
func block(t *testing.T, kind, text string) pluginhost.Block {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(text), "agentlab.hcl", hcl.Pos{Line: 1, Column: 1})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return pluginhost.Block{
		Kind: kind, Name: "toy", Body: file.Body,
		Range: hcl.Range{Filename: "agentlab.hcl", Start: hcl.Pos{Line: 99}},
	}
}

// run starts a host and stops it when the test ends.
func run(t *testing.T, blocks ...pluginhost.Block) *pluginhost.Host {
	t.Helper()
	runDir, err := os.MkdirTemp("", "al")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runDir) })
	h := pluginhost.New(pluginhost.Config{
		Blocks: blocks, PluginDir: pluginDir, RunDir: runDir, StateDir: t.TempDir(), HostUUID: "uuid", HostVersion: "test",
	}, hclog.New(&hclog.LoggerOptions{Output: io.Discard}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		left, _ := os.ReadDir(runDir)
		if len(left) > 0 {
			t.Errorf("%d sockets left", len(left))
		}
	})
	return h
}

func ready(t *testing.T, h *pluginhost.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := h.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestConfigurationArrives(t *testing.T) {
	h := run(t, block(t, "secrets", "folder = \"/f\"\nkeys = [\"a\"]\n"))
	b, err := h.Secrets().Open(t.Context(), "x", "") // waits for the start
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.Document.Reveal(), `{"folder":"/f","keys":["a"],"limit":10}`; got != want {
		t.Errorf("configuration %s, want %s", got, want)
	}
	dir, uuid, _ := strings.Cut(b.Version, " ")
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o711 || filepath.Base(dir) != "secrets-toy" || uuid != "uuid" {
		t.Errorf("state folder %s is %v, %v; uuid %q", dir, info.Mode(), err, uuid)
	}
	ready(t, h)
	s := h.List()[0]
	if s.State != pluginhost.Ready || s.Version != "1.2.3" || s.PID == 0 || s.Name != "toy" || s.StartedAt.IsZero() {
		t.Errorf("status %+v", s)
	}
	if _, err := h.Secrets().Describe(t.Context(), "x"); !errors.Is(err, fault.NotFound) || fault.HintOf(err) != "make one" {
		t.Errorf("driver's error came as %v", err)
	}
}

func TestEnvironmentIsExact(t *testing.T) {
	t.Setenv("AGENTLAB_TOKEN", "hunter2")
	h := run(t, block(t, "secrets", "folder = \"/f\"\n"))
	env, err := h.Secrets().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		switch {
		case key == "PATH", e == "LANG=C", e == "TMPDIR=/tmp", key == "AGENTLAB_PLUGIN", strings.HasPrefix(key, "PLUGIN_"):
		default:
			t.Errorf("plugin sees %s", e)
		}
	}
}

// kill ends the plugin's process and waits until the host has taken note.
func kill(t *testing.T, h *pluginhost.Host) {
	t.Helper()
	pid := h.List()[0].PID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end is noticed", func() bool { return h.List()[0].PID != pid })
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func isReady(h *pluginhost.Host) func() bool {
	return func() bool { return h.List()[0].State == pluginhost.Ready }
}

// TestKilledPluginComesBack: after the first kill a call that only reads is made
// again and others wait; after the second the one that was lost twice fails with
// the cause and where to read more, and so do new ones, at once.
func TestKilledPluginComesBack(t *testing.T) {
	h := run(t, block(t, "secrets", "folder = \"/f\"\n"))
	driver := h.Secrets()
	ready(t, h)
	pid := h.List()[0].PID
	hung := make(chan error, 1)
	go func() {
		_, err := driver.Open(t.Context(), "hang", "")
		hung <- err
	}()
	time.Sleep(200 * time.Millisecond)
	kill(t, h)
	if _, err := driver.Open(t.Context(), "x", ""); err != nil { // the same driver, a new process
		t.Fatal(err)
	}
	s := h.List()[0]
	if s.PID == pid || s.PID == 0 || s.Restarts != 1 || s.State != pluginhost.Ready {
		t.Errorf("status %+v after killing %d", s, pid)
	}
	time.Sleep(200 * time.Millisecond)
	kill(t, h)
	began := time.Now()
	_, down := driver.Open(t.Context(), "x", "")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a call to a plugin in backoff took %s", took)
	}
	crashes := h.List()[0].CrashID
	for what, err := range map[string]error{"lost": <-hung, "refused": down} {
		if !errors.Is(err, fault.Unavailable) || fault.HintOf(err) != "agentlab plugin info secrets shows the crash report" {
			t.Errorf("%s call: %v (%s)", what, err, fault.HintOf(err))
			continue
		}
		for _, want := range []string{"secrets toy", "killed by SIGKILL", crashes} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in that of the %s call: %v", want, what, err)
			}
		}
	}
	eventually(t, "it is back", isReady(h))
	d, err := h.Detail("secrets")
	if err != nil || d.Restarts != 2 || len(d.Crashes) != 2 || d.Reason != "" {
		t.Fatalf("detail %+v, %v", d, err)
	}
	last := d.Crashes[0]
	if n := len(last.Calls); last.ID != crashes || n == 0 || last.Calls[n-1].Method != "Open" || last.Calls[n-1].Outcome == "ok" || last.Signal != "SIGKILL" {
		t.Errorf("crash report %+v", last)
	}
}

func TestCallsGetDeadlines(t *testing.T) {
	h := run(t, block(t, "secrets", "folder = \"/f\"\n"))
	ready(t, h)
	b, err := h.Secrets().Open(t.Context(), "deadline", "")
	if err != nil || b.Version != "10s" {
		t.Errorf("default deadline of a read is %q, %v", b.Version, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := h.Secrets().Open(ctx, "hang", ""); !errors.Is(err, fault.Timeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hung call ended with %v", err)
	}
}

func TestFailuresNameTheCause(t *testing.T) {
	tests := []struct {
		name  string
		block pluginhost.Block
		state pluginhost.State
		want  []string
	}{
		{"no binary", pluginhost.Block{Kind: "secrets", Name: "absent"}, pluginhost.Backoff, []string{"secrets absent", "agentlab-plugin-absent", "does not exist"}},
		{"not a plugin", pluginhost.Block{Kind: "secrets", Name: "x", Path: "/bin/echo"}, pluginhost.Backoff, []string{"secrets x", "Unrecognized remote plugin message"}},
		{"other kind", block(t, "network", "folder = \"/f\"\n"), pluginhost.Failed, []string{"agentlab.hcl:99", " is a secrets plugin, not a network plugin"}},
		{"configure", block(t, "secrets", "folder = \"/f\"\nmode = \"broken\"\ntoken = \"hunter2-hunter2\"\n"), pluginhost.Backoff, []string{"server refused [REDACTED]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := run(t, tt.block)
			err := h.Ready(t.Context())
			if err == nil {
				t.Fatal("came up")
			}
			s := h.List()[0]
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) || !strings.Contains(s.Reason, want) {
					t.Errorf("no %q in\n%v\nor status\n%s", want, err, s.Reason)
				}
			}
			if s.State != tt.state && s.State != pluginhost.Starting {
				t.Errorf("state %s", s.State)
			}
		})
	}
}

func TestCallToAPluginThatIsNotThere(t *testing.T) {
	h := run(t, block(t, "secrets", "limit = 5\n"))
	if err := h.Ready(t.Context()); !errors.Is(err, fault.Invalid) {
		t.Fatalf("ready: %v", err)
	}
	began := time.Now()
	_, err := h.Secrets().Open(t.Context(), "x", "")
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "folder") || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	if _, err := h.Hypervisor().CheckHost(t.Context()); !errors.Is(err, fault.Unsupported) || fault.HintOf(err) == "" {
		t.Errorf("kind without a plugin: %v", err)
	}
	if _, err := h.Hypervisor().ListVMs(t.Context(), "", false); !errors.Is(err, fault.Unsupported) {
		t.Errorf("stream of a kind without a plugin: %v", err)
	}
}

func TestDiagnosticsHavePlaces(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown", "folder = \"/f\"\n\nlimt = 3\n", "agentlab.hcl:3: unknown key \"limt\"; Did you mean \"limit\"?"},
		{"missing", "limit = 5\n", "agentlab.hcl:1: Missing required argument; The argument \"folder\" is required, but no definition was found."},
		{"type", "folder = \"/f\"\ntoken = [\"hunter2-hunter2\"]\n", "agentlab.hcl:2: Incorrect attribute value type"},
		{"range", "folder = \"/f\"\nlimit = 1000\n", "agentlab.hcl:2: \"limit\" is out of range; it must be from 1 to 100"},
		{"choice", "folder = \"/f\"\n\n\nmode = \"fancy\"\n", "agentlab.hcl:4: \"fancy\" is not possible for \"mode\"; possible are plain, broken, meet"},
		{"plugin's", "folder = \"/f\"\ntoken = \"hunter2-hunter2\"\nkeys = [\n  \"good\",\n  \"bad one\",\n]\n", "agentlab.hcl:5: key is bad, said [REDACTED]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := run(t, block(t, "secrets", tt.text))
			err := h.Ready(t.Context())
			var wrong *pluginhost.ConfigError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", err, h.List()), "hunter2") {
				t.Errorf("secret shown: %v", err)
			}
			if s := h.List()[0]; s.State != pluginhost.Failed {
				t.Errorf("state %s", s.State)
			}
		})
	}
}

// Each of two plugins is configured only while the other one is, too.
func TestPluginsStartAtTheSameTime(t *testing.T) {
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o777); err != nil { // the plugins may have a user of their own
		t.Fatal(err)
	}
	meeting := fmt.Sprintf("folder = %q\nmode = \"meet\"\n", folder)
	ready(t, run(t, block(t, "secrets", meeting), block(t, "secrets", meeting)))
}
