package crash_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// newRepo makes a git repository with one commit.
func newRepo(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "first"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	return dir
}

// TestTerm: the daemon is stopped as systemd stops it while a job runs and
// somebody follows it. The guest goes on, and the job is brought to its end by
// the next daemon.
func TestTerm(t *testing.T) {
	t.Parallel()
	repo := newRepo(t)
	s := testkit.NewSim(t)
	s.Start(t)
	follow := make(chan testkit.Result, 1)
	go func() {
		follow <- s.Run("job", "run", "--repo", repo, "--profile", "sim", "--task", "sim:print=before sim:sleep=3s sim:print=behind sim:exit=7")
	}()
	var job api.Job
	testkit.Eventually(t, patient, "the job runs", func() bool {
		jobs, err := s.Client.Jobs(t.Context(), client.JobQuery{})
		if err == nil && len(jobs) == 1 {
			job = jobs[0]
		}
		return job.State == string(lab.JobRunning)
	})
	before := awaitGuest(t, s, job.VMID)

	began := time.Now()
	if code := s.Term(t); code != 0 {
		t.Errorf("exit code %d on SIGTERM", code)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the daemon took %s to end", took)
	}
	if pids := s.PluginPIDs(); len(pids) > 0 {
		t.Errorf("plugins %v outlive their daemon", pids)
	}
	if after := awaitGuest(t, s, job.VMID); after.Boot != before.Boot || after.Power != hypervisor.PowerOn {
		t.Errorf("the guest did not go on: power %s, boot %d, was %d", after.Power, after.Boot, before.Boot)
	}
	s.Start(t)
	r := <-follow
	if r.Code != 7 || !strings.Contains(r.Stdout, "before\nbehind\n") {
		t.Errorf("agentlab job run: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if j := awaitJob(t, s, job.ID); j.State != string(lab.JobFailed) || j.ExitCode == nil || *j.ExitCode != 7 {
		t.Errorf("the job is %s, exit %v, %q", j.State, j.ExitCode, j.Reason)
	}
	checkClean(t, s)
	if repos, err := os.ReadDir(filepath.Join(s.Dir, "data", "repos")); err != nil || len(repos) > 0 {
		t.Errorf("uploaded repositories left: %v, %v", repos, err)
	}
	_ = s.Term(t)
	if files, err := os.ReadDir(filepath.Join(s.Dir, "run", "p")); err != nil || len(files) > 0 {
		t.Errorf("left in the run directory: %v, %v", files, err)
	}
}

// TestSecondDaemon: another daemon on the same data says who has it, and the
// first goes on.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	job := submit(t, s, api.JobCreate{Task: "sim:sleep=1s"})
	awaitJobState(t, s, job.ID, lab.JobRunning)
	for range 2 { // the refused one must not spoil the lock either
		began := time.Now()
		r := testkit.Capture(s.Daemon())
		if r.Code != 1 || !strings.Contains(r.Stderr, "another agentlabd") || !strings.Contains(r.Stderr, fmt.Sprintf("process %d", s.PID())) {
			t.Errorf("the second daemon: exit %d, %q", r.Code, r.Stderr)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s to say so", took)
		}
	}
	if r := s.Run("status"); r.Code != 0 {
		t.Errorf("status of the first: exit %d, %s", r.Code, r.Stderr)
	}
	if j := awaitJob(t, s, job.ID); j.State != string(lab.JobCompleted) {
		t.Errorf("the job is %s: %q", j.State, j.Reason)
	}
	checkClean(t, s)
}

// lineOf is the number of the first line of the text that holds what.
func lineOf(t *testing.T, text, what string) int {
	t.Helper()
	i := slices.IndexFunc(strings.Split(text, "\n"), func(l string) bool { return strings.Contains(l, what) })
	if i < 0 {
		t.Fatalf("%q is not in the text", what)
	}
	return i + 1
}

// TestBadConfig: the daemon does not start, and says where the mistake is.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	good := s.Config(s.Plugins())
	for name, tc := range map[string]struct{ text, at, say string }{
		"unknown key":  {good + "agent_subnett = \"10.0.0.0/16\"\n", "agent_subnett", "agent_subnet"},
		"wrong type":   {good + "log_max_bytes = \"many\"\n", "log_max_bytes", "number"},
		"out of range": {good + "provisioning_timeout = \"1s\"\n", "provisioning_timeout", "10s"},
		"bad kind":     {good + "plugin \"hypervisr\" \"sim\" {}\n", "hypervisr", "hypervisor"},
		"twice":        {good + "\nplugin \"network\" \"other\" {}\n", "\"other\"", "second network plugin"},
		"syntax":       {good + "plugin {{\n", "plugin {{", ""},
	} {
		s.WriteConfig(t, tc.text)
		r := testkit.Capture(s.Daemon())
		at := fmt.Sprintf("%s:%d: ", s.ConfigFile(), lineOf(t, tc.text, tc.at))
		if r.Code != 78 || !strings.Contains(r.Stderr, at) || !strings.Contains(r.Stderr, tc.say) {
			t.Errorf("%s: exit %d, want %q and %q in:\n%s", name, r.Code, at, tc.say, r.Stderr)
		}
	}
	s.WriteConfig(t, good)
	if err := os.Chmod(s.ConfigFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := testkit.Capture(s.Daemon()); r.Code != 78 || !strings.Contains(r.Stderr, "chmod 0600") {
		t.Errorf("a file for everybody: exit %d\n%s", r.Code, r.Stderr)
	}
}

// TestPluginsThatFail: the daemon stays up without its plugins, says what is
// wrong with each, and does what it can do without them.
func TestPluginsThatFail(t *testing.T) {
	t.Parallel()
	missing := "/usr/lib/agentlab/plugins/agentlab-plugin-nowhere"
	t.Run("missing binary", func(t *testing.T) {
		t.Parallel()
		s := testkit.NewSim(t)
		s.WriteConfig(t, s.Config(s.Block("hypervisor", s.Plugin, "")+s.Block("network", s.Plugin, "")+s.Block("secrets", missing, "")))
		s.Start(t)
		expectPlugin(t, s, "secrets", "backoff", missing)
		job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: "sim:exit=0", Profile: "plain"}).ID)
		if job.State != string(lab.JobCompleted) {
			t.Errorf("a job that needs no secrets is %s: %q", job.State, job.Reason)
		}
		r := s.Run("job", "run", "--repo", repoURL, "--profile", "sim", "--task", "x")
		if r.Code == 0 || !strings.Contains(r.Stderr, "secrets sim") {
			t.Errorf("a job that needs secrets: exit %d, %q", r.Code, r.Stderr)
		}
		checkClean(t, s)
	})
	t.Run("unknown attribute", func(t *testing.T) {
		t.Parallel()
		s := testkit.NewSim(t)
		text := s.Config(s.Block("hypervisor", s.Plugin, "    hartbeat = \"1s\"\n") + s.Block("network", s.Plugin, ""))
		s.WriteConfig(t, text)
		s.Start(t)
		expectPlugin(t, s, "hypervisor", "failed", fmt.Sprintf("%s:%d: ", s.ConfigFile(), lineOf(t, text, "hartbeat")))
		if r := s.Run("sandbox", "new", "--profile", "plain"); r.Code == 0 || !strings.Contains(r.Stderr, "hypervisor sim") {
			t.Errorf("a sandbox without a hypervisor: exit %d, %q", r.Code, r.Stderr)
		}
		// Mended, it works after the restart that a new configuration needs.
		_ = s.Term(t)
		s.WriteConfig(t, s.Config(s.Plugins()))
		s.Start(t)
		expectPlugin(t, s, "hypervisor", "ready", "")
	})
	t.Run("not a plugin", func(t *testing.T) {
		t.Parallel()
		s := testkit.NewSim(t)
		s.WriteConfig(t, s.Config(s.Block("hypervisor", s.Plugin, "")+s.Block("network", "/bin/true", "")))
		s.Start(t)
		expectPlugin(t, s, "network", "backoff", "")
		if code := s.Term(t); code != 0 {
			t.Errorf("exit code %d on SIGTERM", code)
		}
	})
}

// expectPlugin waits until status and plugin list show the plugin so.
func expectPlugin(t *testing.T, s *testkit.Sim, kind, state, message string) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, kind+" is "+state, func() bool {
		return slices.ContainsFunc(plugins(t, s), func(p api.Plugin) bool { return p.Kind == kind && p.State == state })
	})
	for _, p := range plugins(t, s) {
		if p.Kind == kind && !strings.Contains(p.Message, message) || state != "ready" && p.Kind == kind && p.Message == "" {
			t.Errorf("plugin list says of it %q, want %q", p.Message, message)
		}
	}
	if r := s.Run("status"); r.Code != 0 || !strings.Contains(r.Stdout, state) || !strings.Contains(r.Stdout, message) {
		t.Errorf("agentlab status: exit %d, want %q in:\n%s%s", r.Code, message, r.Stdout, r.Stderr)
	}
}

func plugins(t *testing.T, s *testkit.Sim) []api.Plugin {
	t.Helper()
	r := s.Run("plugin", "list", "--json")
	var out struct{ Plugins []api.Plugin }
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil || r.Code != 0 {
		t.Fatalf("agentlab plugin list --json: exit %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	return out.Plugins
}
