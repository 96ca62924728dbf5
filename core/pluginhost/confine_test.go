package pluginhost_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/sdk/fault"
)

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// Values of sensitive attributes are in no log, and a deprecated one is told with
// what to use.
func TestLogOfAConfiguration(t *testing.T) {
	runDir, err := os.MkdirTemp("", "al")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(runDir) }()
	log := &journal{}
	b := block(t, "secrets", "folder = \"/f\"\ntoken = \"hunter2-hunter2\"\ndir = \"/d\"\n")
	h := pluginhost.New(pluginhost.Config{
		Blocks: []pluginhost.Block{b}, PluginDir: pluginDir, RunDir: runDir, StateDir: t.TempDir(), HostUUID: "uuid", HostVersion: "test",
	}, hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	ready(t, h)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got := log.String()
	if strings.Contains(got, "hunter2") || !strings.Contains(got, "talks too much: token=[REDACTED]") {
		t.Errorf("log:\n%s", got)
	}
	if !strings.Contains(got, `"\"dir\" is deprecated; Use folder instead."`) || !strings.Contains(got, "line=3") {
		t.Errorf("nothing about the deprecated attribute in\n%s", got)
	}
}

func TestBlockThatAllowsLess(t *testing.T) {
	b := block(t, "secrets", "folder = \"/f\"\n")
	b.Allow = []string{"network"}
	h := run(t, b)
	want := "agentlab.hcl:99: the plugin asks for root, which its block does not allow; add it to allow, or do without the plugin"
	if err := h.Ready(t.Context()); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	cfg := pluginhost.Config{PluginDir: pluginDir, RunDir: os.TempDir()}
	diags, err := pluginhost.Validate(t.Context(), cfg, b, hclog.NewNullLogger())
	if err != nil || len(diags) != 1 || !strings.HasPrefix(diags[0].Summary, "the plugin asks for root") {
		t.Errorf("%v, %v", diags, err)
	}
	b.Allow = []string{"root", "network"}
	ready(t, run(t, b))
}

func TestGrantIsTold(t *testing.T) {
	b := block(t, "secrets", "folder = \"/f\"\n")
	h := run(t, b)
	ready(t, h)
	if d, err := h.Detail("secrets"); err != nil || !d.Grant.Confined || d.Grant.Network != (os.Geteuid() != 0) || d.Grant.UID != os.Geteuid() {
		t.Errorf("%+v, %v", d.Grant, err)
	}
	b.Unconfined = true
	h = run(t, b)
	ready(t, h)
	if d, err := h.Detail("secrets"); err != nil || d.Grant.Confined || !strings.Contains(d.Grant.Why, "confine = false") {
		t.Errorf("%+v, %v", d.Grant, err)
	}
}

// What another user of the plugin's left in the state folder becomes its own.
func TestStateFolderIsTaken(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	state := t.TempDir()
	dir := state + "/secrets-toy"
	outside := state + "/outside"
	err := errors.Join(os.MkdirAll(dir+"/deep", 0o700), os.WriteFile(dir+"/deep/file", nil, 0o600), os.WriteFile(outside, nil, 0o600),
		os.Symlink(outside, dir+"/link"), os.Chown(outside, 4711, 4711), os.Chown(dir, 4711, 4711), os.Chown(dir+"/deep/file", 4711, 4711))
	if err != nil {
		t.Fatal(err)
	}
	runDir, err := os.MkdirTemp("", "al")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(runDir) }()
	h := pluginhost.New(pluginhost.Config{
		Blocks: []pluginhost.Block{block(t, "secrets", "folder = \"/f\"\n")}, PluginDir: pluginDir, RunDir: runDir, StateDir: state,
	}, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	ready(t, h)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for path, want := range map[string]uint32{dir: 0, dir + "/deep/file": 0, outside: 4711} {
		info, err := os.Stat(path)
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != want {
			t.Errorf("%s is not of uid %d (%v)", path, want, err)
		}
	}
}
