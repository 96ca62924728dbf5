package launch_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// rights are what the kernel says of a process.
func rights(t *testing.T, task string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", task, "status"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs":
			out[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return out
}

// deviceOfRoot is one that only root may open.
func deviceOfRoot(t *testing.T) string {
	t.Helper()
	var found string
	_ = filepath.WalkDir("/dev", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeDevice != 0 {
			if info, err := d.Info(); err == nil && info.Mode().Perm()&0o006 == 0 {
				found = path
				return fs.SkipAll
			}
		}
		return nil
	})
	if found == "" {
		t.Skip("needs a device that only root may open")
	}
	return found
}

func netOf(t *testing.T, pid string) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join("/proc", pid, "ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, who has something to take away")
	}
}

func TestConfinement(t *testing.T) {
	needRoot(t)
	const none, admin = "0000000000000000", "0000000000001400" // CAP_NET_ADMIN and CAP_NET_BIND_SERVICE
	both := []string{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"}
	tests := []struct {
		name  string
		asks  plugin.Confinement
		root  bool
		caps  string // all that it has
		inh   string
		hasNW bool
	}{
		{"nothing", plugin.Confinement{User: plugin.NoUser}, false, none, none, false},
		{"capabilities", plugin.Confinement{User: plugin.NoUser, Capabilities: both, Network: true}, false, admin, admin, true},
		{"root without", plugin.Confinement{}, true, none, none, false},
		{"root with some", plugin.Confinement{Capabilities: both, Network: true}, true, admin, none, true},
		{"device for all", plugin.Confinement{User: plugin.NoUser, Devices: []string{"/dev/null", "/dev/not-there"}}, false, none, none, false},
		{"device for root", plugin.Confinement{User: plugin.NoUser, Devices: []string{"/dev/null", deviceOfRoot(t)}}, true, none, none, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			grant, err := launch.GrantOf(tt.asks, "/var/lib/agentlab/plugins/secrets-toy")
			if err != nil {
				t.Fatal(err)
			}
			spec := testSpec(t, "serve", io.Discard)
			spec.Grant = grant
			p, driver := start(t, spec)
			ids, groups, ambient := strings.TrimSpace(strings.Repeat(strconv.Itoa(grant.UID)+" ", 4)), "", tt.caps
			if tt.root {
				groups, ambient = rights(t, "self")["Groups"], none
			}
			want := map[string]string{
				"Uid": ids, "Gid": ids, "Groups": groups, "NoNewPrivs": "1",
				"CapInh": tt.inh, "CapPrm": tt.caps, "CapEff": tt.caps, "CapBnd": tt.caps, "CapAmb": ambient,
			}
			if tt.root != (grant.UID == 0) {
				t.Errorf("uid %d", grant.UID)
			}
			pid := strconv.Itoa(p.PID())
			if diff := cmp.Diff(want, rights(t, pid)); diff != "" {
				t.Error(diff)
			}
			if has := netOf(t, pid) == netOf(t, "self"); has != tt.hasNW {
				t.Errorf("network of the host: %v", has)
			}
			b, err := driver.Open(t.Context(), "spawn", "")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, rights(t, b.Version)); diff != "" {
				t.Errorf("what it starts: %s", diff)
			}
			got, err := driver.Describe(t.Context(), "")
			if err != nil || got.File != "agentlab-plugin" {
				t.Errorf("called %q, %v", got.File, err)
			}
		})
	}
	threadsAreUntouched(t)
}

// A host may itself have inherited capabilities to pass on, as from a service
// with AmbientCapabilities=.
func TestConfinementByAHostThatPassesOn(t *testing.T) {
	needRoot(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConfinement$")
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_PERFMON}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// threadsAreUntouched wants the host itself to have what it had: confinement is
// prepared on a thread of the host.
func threadsAreUntouched(t *testing.T) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	want := rights(t, "self")
	for _, task := range tasks {
		path := filepath.Join("self/task", task.Name())
		for range 100 { // a thread ends a moment after its process was reaped
			if _, err := os.Stat("/proc/" + path); err != nil || rights(t, path)["NoNewPrivs"] == "0" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := os.Stat("/proc/" + path); err == nil {
			if diff := cmp.Diff(want, rights(t, path)); diff != "" || want["NoNewPrivs"] != "0" {
				t.Errorf("thread %s: %s", task.Name(), diff)
			}
		}
	}
}

func TestGrants(t *testing.T) {
	needRoot(t)
	a, err1 := launch.GrantOf(plugin.Confinement{User: plugin.NoUser}, "/a")
	b, err2 := launch.GrantOf(plugin.Confinement{User: plugin.NoUser}, "/b")
	again, err3 := launch.GrantOf(plugin.Confinement{User: plugin.NoUser}, "/a")
	if err := errors.Join(err1, err2, err3); err != nil || a.UID == b.UID || a.UID != again.UID || a.UID < 1_880_000_000 || a.UID >= 1_890_000_000 {
		t.Errorf("users %d, %d and %d, %v", a.UID, b.UID, again.UID, err)
	}
	if g, err := launch.GrantOf(plugin.Confinement{User: plugin.NoUser, StartsWorkloads: true}, "/a"); err != nil || g.Confined || g.Why == "" {
		t.Errorf("what starts VMs: %+v, %v", g, err)
	}
	if g, err := launch.GrantOf(plugin.Confinement{User: "daemon"}, "/a"); err != nil || g.UID != 1 || g.GID != 1 {
		t.Errorf("account: %+v, %v", g, err)
	}
	if _, err := launch.GrantOf(plugin.Confinement{User: "no-such-account"}, "/a"); !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
		t.Errorf("unknown account: %v", err)
	}
	if _, err := launch.GrantOf(plugin.Confinement{Capabilities: []string{"CAP_MAGIC"}}, "/a"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("unknown capability: %v", err)
	}
	// Whatever else only root may read is no reason to be root.
	for _, path := range []string{"/etc/shadow", "/dev/../etc/shadow", "/dev/shm", "dev/null", ""} {
		if g, err := launch.GrantOf(plugin.Confinement{User: plugin.NoUser, Devices: []string{path}}, "/a"); !errors.Is(err, fault.Unsupported) {
			t.Errorf("device %q: %+v, %v", path, g, err)
		}
	}
	spec := testSpec(t, "serve", io.Discard)
	spec.Grant = launch.Grant{Confined: true, UID: 12345, GID: 12345}
	spec.Path = copyOf(t, spec.Path, 0o700)
	if _, err := launch.Start(t.Context(), spec); !errors.Is(err, fault.Denied) || !strings.Contains(fault.HintOf(err), "chmod 755") {
		t.Errorf("a binary that only root may run: %v", err)
	}
}

func TestWords(t *testing.T) {
	needRoot(t)
	tests := []struct {
		asks plugin.Confinement
		want string
	}{
		{plugin.Confinement{}, "root"},
		{plugin.Confinement{User: "root"}, "root"},
		{plugin.Confinement{User: plugin.NoUser}, ""},
		{plugin.Confinement{User: "daemon", Network: true}, "user:daemon network"},
		{plugin.Confinement{User: plugin.NoUser, Devices: []string{"/dev/null"}, Capabilities: []string{"CAP_KILL", "CAP_CHOWN"}}, "CAP_CHOWN CAP_KILL"},
		{plugin.Confinement{User: plugin.NoUser, Devices: []string{deviceOfRoot(t)}}, "root"},
		{plugin.Confinement{User: "daemon", Devices: []string{deviceOfRoot(t)}}, "root"},
		{plugin.Confinement{User: plugin.NoUser, StartsWorkloads: true}, "workloads"},
	}
	for _, tt := range tests {
		g, err := launch.GrantOf(tt.asks, "/a")
		if err != nil {
			t.Fatal(err)
		}
		got := launch.Words(tt.asks, g)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%+v: %q", tt.asks, got)
		}
		for _, word := range got {
			if !launch.IsWord(word) {
				t.Errorf("%q is no word", word)
			}
		}
	}
}

func copyOf(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "plugin")
	if err := errors.Join(os.WriteFile(out, content, mode), os.Chmod(out, mode)); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAskTellsAndEnds(t *testing.T) {
	spec := testSpec(t, "serve", io.Discard)
	spec.Grant = launch.Grant{} // does not count
	asked, err := launch.Ask(t.Context(), spec, "test")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := launch.Sum(spec.Path, "")
	if err != nil || asked.SHA256 != sum || asked.Info.Name != "toy" || asked.Schema.Version != 1 {
		t.Errorf("%+v, sum %s, %v", asked, sum, err)
	}
	spec.SHA256 = strings.Repeat("0", 64)
	if _, err := launch.Ask(t.Context(), spec, "test"); !errors.Is(err, fault.Denied) {
		t.Errorf("another binary than the pinned: %v", err)
	}
}

// TestOneAsks: what starts at once from one binary is not asked one by one.
func TestOneAsks(t *testing.T) {
	var log record
	spec := testSpec(t, "announce", &log)
	content, err := os.ReadFile(spec.Path)
	if err != nil {
		t.Fatal(err)
	}
	spec.Path = filepath.Join(shortDir(t), "agentlab-plugin-toy")
	unheard := append(content, time.Now().String()...) // not even by an earlier run of this test
	if err := os.WriteFile(spec.Path, unheard, 0o755); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if _, _, err := launch.Confine(t.Context(), spec, "/var/lib/toy", "test"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := strings.Count(log.String(), "announced"); n != 1 {
		t.Errorf("%d processes were asked, want 1:\n%s", n, &log)
	}
}
