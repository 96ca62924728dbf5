package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/internal/testkit"
)

// running is a real daemon over a simulated host whose configuration changes.
type running struct {
	*testkit.Sim
	t      *testing.T
	told   chan api.Event // config.* as they come
	states chan string    // what systemd would hear
}

func newRunning(t *testing.T) *running {
	r := &running{Sim: testkit.NewSim(t), t: t, told: make(chan api.Event, 100), states: make(chan string, 1000)}
	r.listen()
	r.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		zero := int64(0)
		for e, err := range r.Client.Events(ctx, client.EventQuery{After: &zero, Types: []string{"config.reloaded", "config.rejected"}}) {
			if err != nil {
				return
			}
			r.told <- e
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// listen takes the place of systemd.
func (r *running) listen() {
	path := filepath.Join(r.Dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Setenv("NOTIFY_SOCKET", path)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			r.states <- string(buf[:n])
		}
	}()
	r.t.Cleanup(func() { _ = conn.Close(); <-done })
}

// heard gives what systemd was told of reloads, until nothing more comes.
func (r *running) heard() []string {
	var out []string
	for {
		select {
		case s := <-r.states:
			for _, word := range []string{"RELOADING=", "STATUS=Configuration ", "STATUS=Needs a restart"} {
				if strings.Contains(s, word) {
					out = append(out, strings.TrimSpace(s))
				}
			}
		case <-time.After(300 * time.Millisecond):
			return out
		}
	}
}

func (r *running) hangUp() {
	r.t.Helper()
	if err := syscall.Kill(r.PID(), syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
}

// reload writes the configuration and gives the event that comes of it.
func (r *running) reload(text string) api.Event {
	r.t.Helper()
	r.WriteConfig(r.t, text)
	r.hangUp()
	select {
	case e := <-r.told:
		return e
	case <-time.After(20 * time.Second):
		r.t.Fatalf("no event of a reload; the log:\n%s", r.Log())
	}
	return api.Event{}
}

// problems are those of the status, with $D for the directory and without times, which
// the doctor finds too, each with a remedy.
func (r *running) problems() []string {
	r.t.Helper()
	s, err := r.Client.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	found, err := r.Client.HostFindings(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range found {
		if f.ID == "reload" && (f.Level != api.LevelWarning || f.Fix == "" || !slices.Contains(s.Problems, f.Message)) {
			r.t.Errorf("finding %+v, problems %q", f, s.Problems)
		}
	}
	found = slices.DeleteFunc(found, func(f api.Finding) bool { return f.ID != "reload" })
	if len(found) != len(s.Problems) {
		r.t.Errorf("the doctor finds %+v, status has %q", found, s.Problems)
	}
	out := []string{}
	for _, p := range s.Problems {
		p = strings.ReplaceAll(p, r.Dir, "$D")
		if before, after, ok := strings.Cut(p, " taken over at "); ok {
			p = before + " taken over" + after[len(time.TimeOnly):]
		}
		out = append(out, p)
	}
	return out
}

func (r *running) profiles() []string {
	r.t.Helper()
	list, err := r.Client.Profiles(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, p := range list.Items {
		out = append(out, p.Name)
	}
	return out
}

func (r *running) job(profile, task string) api.Job {
	r.t.Helper()
	a, err := r.Client.CreateJob(r.t.Context(), api.JobCreate{Profile: profile, Task: task, RepoURL: "https://git.example/x"})
	if err != nil {
		r.t.Fatal(err)
	}
	return *a.Job
}

func (r *running) wait(j api.Job) api.Job {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	j, err := r.Client.WaitJob(ctx, j.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return j
}

func (r *running) want(what string, got, want any) {
	r.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s: %s", what, diff)
	}
}

// TestReloadUnderAJob changes the configuration in every way while a job runs
// and wants the job, the daemon and the plugins whose blocks stay to go on as they
// were.
func TestReloadUnderAJob(t *testing.T) {
	r := newRunning(t)
	good := r.Config(r.Plugins())
	pid, plugins := r.PID(), r.PluginPIDs()
	slices.Sort(plugins)
	r.heard()
	job := r.job("sim", "sim:print=begun sim:sleep=8s sim:artifact=out/a.txt:12 sim:leak=PLANTED")
	testkit.Eventually(t, 20*time.Second, "the job runs", func() bool {
		return strings.Contains(r.Run("job", "logs", job.ID).Stdout, "begun")
	})

	// Taken over.
	if err := os.Mkdir(filepath.Join(r.Dir, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "other", "p.hcl"), []byte("profile \"other\" {\n  template = \"debian-12\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	moved := strings.Replace(good, r.Dir+"/profiles", r.Dir+"/other", 1) + "artifact_max_bytes = 1000\n"
	r.want("event", r.reload(moved).Type, "config.reloaded")
	r.want("profiles", r.profiles(), []string{"other"})
	r.want("problems", r.problems(), []string{})
	r.want("systemd", words(r.heard()), []string{"RELOADING=1 MONOTONIC_USEC=…", "READY=1 STATUS=Configuration reloaded."})

	// Not what a running daemon can do.
	fixed := strings.Replace(moved, `/data"`, `/data2"`, 1) + "agent_bridge = \"br9\"\n"
	fixed = strings.Replace(fixed, `heartbeat = "100ms"`, `heartbeat = "150ms"`, 1)
	e := r.reload(fixed)
	r.want("event", []string{e.Type, e.Fields["restart"]}, []string{"config.reloaded", "data_dir, agent_bridge"})
	r.want("replaced", e.Fields["plugins"], "hypervisor sim")
	r.want("problems", r.problems(), []string{"needs a restart: data_dir", "needs a restart: agent_bridge"})
	r.want("profiles", r.profiles(), []string{"other"})

	// Wrong in many ways; the newest good one stays.
	bad := fixed + "data_dri = \"/x\"\nlog_max_bytes = -1\n"
	e = r.reload(bad)
	n := strings.Count(bad, "\n")
	wrong := []string{
		fmt.Sprintf(`$D/config.hcl:%d: unknown key "data_dri"; did you mean "data_dir"?`, n-1),
		fmt.Sprintf("$D/config.hcl:%d: log_max_bytes: must be above 0", n),
	}
	r.want("event", []string{e.Type, strings.ReplaceAll(e.Fields["error"], r.Dir, "$D")}, []string{"config.rejected", strings.Join(wrong, "\n")})
	r.want("problems", r.problems()[:2], []string{"configuration not taken over: " + wrong[0], "configuration not taken over: " + wrong[1]})
	r.want("profiles", r.profiles(), []string{"other"})
	for _, line := range wrong {
		if !strings.Contains(strings.ReplaceAll(r.Log(), r.Dir, "$D"), line) {
			t.Errorf("the log has no %s", line)
		}
	}
	heard := words(r.heard())
	if got := heard[len(heard)-1]; !strings.HasPrefix(got, "READY=1 STATUS=Configuration not taken over: ") {
		t.Errorf("systemd heard %q", heard)
	}

	// A block that its plugin refuses.
	e = r.reload(strings.Replace(good, "heartbeat =", "hartbeat =", 1))
	if e.Type != "config.rejected" || !strings.Contains(e.Fields["error"], `did you mean "heartbeat"?`) || !strings.Contains(e.Fields["error"], "config.hcl:13: ") {
		t.Errorf("a wrong plugin block: %+v", e)
	}
	r.want("files", exists(filepath.Join(r.Dir, "data2")), false)

	// And back.
	r.want("event", r.reload(good).Type, "config.reloaded")
	r.want("problems", r.problems(), []string{})
	r.want("profiles", r.profiles(), []string{"plain", "sim", "stop"})

	done := r.wait(job)
	r.want("job", []string{done.State, fmt.Sprint(len(done.Artifacts) > 2)}, []string{"COMPLETED", "true"})
	after := r.PluginPIDs()
	kept := slices.DeleteFunc(slices.Clone(plugins), func(pid int) bool { return !slices.Contains(after, pid) })
	r.want("daemon", r.PID(), pid)
	r.want("plugins, and those not replaced", []int{len(after), len(kept)}, []int{3, 2})
	r.want("exit", r.Term(t), 0)
}

// words puts each message on a line, without its time.
func words(messages []string) []string {
	var out []string
	for _, m := range messages {
		parts := strings.Split(m, "\n")
		for i, p := range parts {
			if key, _, ok := strings.Cut(p, "="); ok && key == "MONOTONIC_USEC" {
				parts[i] = key + "=…"
			}
		}
		out = append(out, strings.Join(parts, " "))
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestNewLimitsCount lowers a limit between two jobs.
func TestNewLimitsCount(t *testing.T) {
	r := newRunning(t)
	r.want("before", r.wait(r.job("plain", "sim:artifact=a:3KB")).State, "COMPLETED")
	r.want("event", r.reload(r.Config(r.Plugins())+"artifact_max_bytes = 2000\n").Type, "config.reloaded")
	if j := r.wait(r.job("plain", "sim:artifact=a:3KB")); j.State == "COMPLETED" {
		t.Error("an artifact above the new limit was taken")
	}
	r.want("small", r.wait(r.job("plain", "sim:artifact=a:1KB")).State, "COMPLETED")
}

// TestHangupsAtAnyTime sends the signal from the first moment on, and far more
// often than a reload takes.
func TestHangupsAtAnyTime(t *testing.T) {
	sim := testkit.NewSim(t)
	sim.Begin(t)
	testkit.Eventually(t, 20*time.Second, "the daemon has its lock", func() bool { return exists(filepath.Join(sim.Dir, "run", "agentlabd.lock")) })
	for range 200 {
		if err := syscall.Kill(sim.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	sim.AwaitUp(t)
	if code := sim.Term(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
