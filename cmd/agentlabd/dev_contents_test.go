package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/fault"
)

// newDevDir makes what --dev does before it starts, for a daemon of runDir.
func newDevDir(t *testing.T, runDir string) devOptions {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it stops a daemon of root")
	}
	o := devOptions{dir: filepath.Join(t.TempDir(), "dev"), runDir: runDir, plugins: "/", unlessUsed: true}
	for _, dir := range []string{"profiles", "keys", "secrets"} {
		if err := os.MkdirAll(filepath.Join(o.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(writeIfAbsent(filepath.Join(o.dir, markName), nil, 0o644), makeKeys(o), writeDevConfig(o, filepath.Join(o.dir, devConfig)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOwnFiles(t *testing.T) {
	o := newDevDir(t, t.TempDir())
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want ...string) {
		t.Helper()
		got, err := o.ownFiles()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("own files (-want +got):\n%s", diff)
		}
	}
	check()
	put("profiles/mine.hcl", "profile \"mine\" {}\n")
	put("secrets/mine.age", "x")
	check("profiles/mine.hcl", "secrets/mine.age")
	put("profiles/dev.hcl", devProfile+"# as an older version had it\n")
	check("profiles/mine.hcl", "secrets/mine.age")
	put("profiles/dev.hcl", devProfile+"\nprofile \"own\" {}\n")
	put("secrets/default.age", "somebody's")
	check("profiles/dev.hcl", "profiles/mine.hcl", "secrets/default.age", "secrets/mine.age")
}

// A second make demo ends the daemon of the first only while nobody has used that.
func TestStopUnlessUsed(t *testing.T) {
	sim := testkit.NewSim(t)
	sim.Start(t)
	runDir := filepath.Dir(sim.Socket())
	job := func(task string) api.Accepted {
		t.Helper()
		a, err := sim.Client.CreateJob(t.Context(), api.JobCreate{Profile: "plain", Task: task, RepoURL: "https://example.com/x.git"})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	stop := func(o devOptions, want string) {
		t.Helper()
		err := stopDev(t.Context(), o)
		switch _, statErr := os.Stat(o.dir); {
		case want == "" && (err != nil || statErr == nil):
			t.Errorf("not stopped: %v", err)
		case want != "" && (!errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), want) || fault.HintOf(err) == ""):
			t.Errorf("stop: %v, want %q and a hint", err, want)
		case want != "" && statErr != nil:
			t.Errorf("refused, and removed all the same: %v", statErr)
		}
	}

	demos := job(demoTask)
	stop(newDevDir(t, runDir), "") // whether its job runs or not

	o := newDevDir(t, runDir)
	a := job("something else")
	if _, err := sim.Client.WaitJob(t.Context(), a.Job.ID); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 20*time.Second, "the jobs' sandboxes are gone", func() bool {
		list, err := sim.Client.Sandboxes(t.Context(), client.SandboxQuery{})
		return err == nil && len(list) == 0
	})
	stop(o, "yours: 1 job; nothing")
	play, err := sim.Client.CreateSandbox(t.Context(), api.SandboxCreate{Profile: "plain", Name: "play"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Client.WaitOperation(t.Context(), play.Operation.ID); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.dir, "profiles", "mine.hcl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop(o, "yours: 1 sandbox, 1 job, profiles/mine.hcl; nothing")

	in, err := o.contents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := in.ended(), "stopped; removed with it: 1 sandbox, 2 jobs, profiles/mine.hcl\nleft for the next one: "; !strings.HasPrefix(got, want) {
		t.Errorf("%q after the job %s, want %q", got, demos.Job.ID, want)
	}

	// Killed: the next daemon would have all of it again.
	sim.Kill()
	if err := os.Rename(filepath.Join(sim.Dir, "data"), filepath.Join(o.dir, "data")); err != nil {
		t.Fatal(err)
	}
	stop(o, "yours: 1 sandbox, 1 job, profiles/mine.hcl; nothing")
	err = errors.Join(os.Remove(filepath.Join(o.dir, "profiles", "mine.hcl")), os.RemoveAll(filepath.Join(o.dir, "data")))
	if err != nil {
		t.Fatal(err)
	}
	stop(o, "")
}

// What cannot be listed may be somebody's, and keeps nobody from ending it by name.
func TestStopOfADirectoryThatCannotBeListed(t *testing.T) {
	o := newDevDir(t, t.TempDir())
	profiles := filepath.Join(o.dir, "profiles")
	if err := errors.Join(os.RemoveAll(profiles), os.WriteFile(profiles, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := stopDev(t.Context(), o); !errors.Is(err, fault.Denied) {
		t.Errorf("--unless-used: %v, want denied", err)
	}
	if _, err := os.Stat(o.dir); err != nil {
		t.Fatalf("refused, and removed all the same: %v", err)
	}
	o.unlessUsed = false
	if err := stopDev(t.Context(), o); err != nil {
		t.Errorf("--stop: %v", err)
	}
	if _, err := os.Stat(o.dir); err == nil {
		t.Error("--stop left the directory")
	}
}

func TestContentsInWords(t *testing.T) {
	in := devContents{
		sandboxes: []api.Sandbox{{}, {}}, files: []string{"keys/x"},
		jobs: []api.Job{{State: "RUNNING"}, {State: "QUEUED"}, {State: "FAILED"}},
	}
	if got, want := in.String(), "2 sandboxes, 3 jobs (2 of them running), keys/x"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	hung := devContents{down: fault.New(fault.Timeout, "no answer")}
	if err := hung.refuseUsed("/d"); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "is not known") {
		t.Errorf("a daemon that runs and does not answer: %v", err)
	}
	if got := hung.ended(); !strings.Contains(got, "removed with it: all that was in it, which could not be counted") {
		t.Errorf("%q", got)
	}
}

// The demo's job is known by its task.
func TestDemoScriptHasTheTask(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), "scripts", "demo.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`--task "` + demoTask + `"`, "--stop --unless-used"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("scripts/demo.sh has no %s", want)
		}
	}
}
