package crash_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// life is the task of a job whose every effect is met with a kill. The guest
// leaks its secret, so the host masks that line; it keeps the length of
// "PLANTED=" and the value.
const (
	life    = "sim:print=first sim:sleep=300ms sim:leak=PLANTED sim:artifact=out.txt:1KB sim:exit=0"
	lifeLog = "the simulated agent begins\nfirst\n[REDACTED]**************\nthe simulated agent ends\n"
)

// story is what happened, without who and when.
func story(log []world.Effect) []string {
	var out []string
	for _, e := range log {
		out = append(out, e.Op+" "+e.Detail)
	}
	return out
}

// undisturbed runs the life without any kill, and shows on the way that the
// checks of the other runs do find what is there.
func undisturbed(t *testing.T) []string {
	s := testkit.NewSim(t)
	s.Start(t)
	job := submit(t, s, api.JobCreate{Task: "sim:sleep=1s " + life})
	awaitJobState(t, s, job.ID, lab.JobRunning)
	if got := left(t, s.World); len(got) < 3 {
		t.Fatalf("while the job runs the world holds only %q", got)
	}
	if wrongEffects(effects(t, s)) == nil {
		t.Fatal("the check of effects takes half a life for a whole one")
	}
	checkLife(t, s, awaitJob(t, s, job.ID))
	got := story(effects(t, s))
	if len(got) <= 5 {
		t.Fatalf("a job's life has only the effects %q", got)
	}
	return got
}

func checkLife(t *testing.T, s *testkit.Sim, job api.Job) {
	t.Helper()
	if job.State != string(lab.JobCompleted) || job.ExitCode == nil || *job.ExitCode != 0 || job.Reason != "" {
		t.Errorf("the job is %s, exit %v, %q", job.State, job.ExitCode, job.Reason)
	}
	if d := cmp.Diff(lifeLog, jobLog(t, s, job.ID)); d != "" {
		t.Errorf("log (- want, + got):\n%s", d)
	}
	var files []string
	for _, a := range job.Artifacts {
		files = append(files, a.Path)
	}
	for _, want := range []string{"agent.log", "out.txt", "report.json"} {
		if !slices.Contains(files, want) {
			t.Errorf("no artifact %s among %q", want, files)
		}
	}
	checkClean(t, s)
}

// TestKillAtEveryEffect kills the daemon, and then the plugin, before and after
// each thing that a job makes happen in the world. The job does not notice, and
// the world sees the same things happen, each once.
func TestKillAtEveryEffect(t *testing.T) {
	t.Parallel()
	want := undisturbed(t)
	t.Logf("effects: %q", want)
	for _, do := range []world.Action{world.KillDaemon, world.KillPlugin} {
		for i, what := range want {
			for _, at := range []world.Point{world.Before, world.After} {
				t.Run(fmt.Sprintf("%s %s %s", do, at, what), func(t *testing.T) {
					t.Parallel()
					killAt(t, world.Fault{Do: do, At: at, Effect: uint64(i + 1)}, want)
				})
			}
		}
	}
}

// TestKillAtCall kills at calls that change nothing in the world, or whose
// answer the guest waits for.
func TestKillAtCall(t *testing.T) {
	t.Parallel()
	for _, do := range []world.Action{world.KillDaemon, world.KillPlugin} {
		for _, op := range []string{"host.check", "secrets.open", "guest.fetch", "guest.log", "guest.upload", "guest.report", "vm.list"} {
			t.Run(fmt.Sprintf("%s %s", do, op), func(t *testing.T) {
				t.Parallel()
				killAt(t, world.Fault{Do: do, At: world.Call, Op: op}, nil)
			})
		}
	}
}

// killAt runs the life with one fault. want is the story it shall have.
func killAt(t *testing.T, f world.Fault, want []string) {
	s := testkit.NewSim(t)
	if err := s.World.SetFaults(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	s.Begin(t)
	stop := s.KeepUp(t)
	job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: life}).ID)
	awaitIdle(t, s)
	testkit.Eventually(t, 10*time.Second, "the fault strikes", func() bool {
		waiting, err := s.World.Faults()
		return err == nil && len(waiting) == 0
	})
	s.AwaitUp(t)
	restarts := stop()
	if wantRestarts := map[world.Action]int{world.KillDaemon: 1}[f.Do]; restarts != wantRestarts {
		t.Errorf("the daemon was killed %d times, want %d", restarts, wantRestarts)
	}
	checkLife(t, s, job)
	if d := cmp.Diff(want, story(effects(t, s))); want != nil && d != "" {
		t.Errorf("what happened (- undisturbed, + here):\n%s", d)
	}
}
