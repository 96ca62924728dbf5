package crash_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	life    = "sim:print=first sim:sleep=300ms sim:beat sim:leak=PLANTED sim:artifact=out.txt:1KB sim:exit=0"
	lifeLog = "the simulated agent begins\nfirst\n[REDACTED]**************\nthe simulated agent ends\n"
)

// story is what happened, without who and when. A VM is off the network before
// it is destroyed, unless the network plugin dies just then: that comes to the
// same.
func story(log []world.Effect) []string {
	var out []string
	for _, e := range log {
		out = append(out, e.Op+" "+e.Detail)
		if n := len(out); n > 1 && e.Op == "network.detach" && out[n-2] == "vm.destroy " {
			out[n-1], out[n-2] = out[n-2], out[n-1]
		}
	}
	return out
}

// undisturbed runs the life without any kill, and shows on the way that the
// checks of the other runs do find what is there.
func undisturbed(t *testing.T, profile string) []string {
	t.Helper()
	s := testkit.NewSim(t)
	s.Start(t)
	job := submit(t, s, api.JobCreate{Task: "sim:sleep=1s " + life, Profile: profile})
	awaitJobState(t, s, job.ID, lab.JobRunning)
	if got := left(t, s.World); len(got) < 3 {
		t.Fatalf("while the job runs the world holds only %q", got)
	}
	if testkit.WrongEffects(effects(t, s)) == nil {
		t.Fatal("the check of effects takes half a life for a whole one")
	}
	job = awaitJob(t, s, job.ID)
	endSandbox(t, s, job)
	checkLife(t, s, job)
	got := story(effects(t, s))
	if len(got) <= 5 {
		t.Fatalf("a job's life has only the effects %q", got)
	}
	return got
}

// endSandbox destroys the sandbox of a job whose profile only stops it.
func endSandbox(t *testing.T, s *testkit.Sim, job api.Job) {
	t.Helper()
	awaitIdle(t, s)
	if job.Profile != "stop" {
		return
	}
	awaitSandbox(t, s, job.SandboxID, lab.SandboxStopped)
	_, err := retried(t, func(ctx context.Context) (api.Accepted, error) { return s.Client.DestroySandbox(ctx, job.SandboxID) })
	if err != nil {
		t.Fatalf("destroy: %v", err)
	}
	awaitIdle(t, s)
}

func checkLife(t *testing.T, s *testkit.Sim, job api.Job) {
	t.Helper()
	checkJob(t, s, job)
	checkClean(t, s)
}

// checkJob expects what the task of a life says.
func checkJob(t *testing.T, s *testkit.Sim, job api.Job) {
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
}

// TestKillAtEveryEffect kills the daemon, and then the plugin, before and after
// each thing that a job makes happen in the world. The job does not notice, and
// the world sees the same things happen, each once.
func TestKillAtEveryEffect(t *testing.T) {
	t.Parallel()
	want := undisturbed(t, "sim")
	t.Logf("effects: %q", want)
	for i, what := range want {
		killAround(t, what, func(t *testing.T, f world.Fault) {
			f.Effect = uint64(i + 1)
			killAt(t, f, "sim", want)
		})
	}
}

// TestKillAtStop does the same with what a profile that stops its sandbox makes
// happen in another way.
func TestKillAtStop(t *testing.T) {
	t.Parallel()
	want := undisturbed(t, "stop")
	t.Logf("effects: %q", want)
	begin := slices.Index(want, "vm.power on") + 1
	for i, what := range want[begin:] {
		killAround(t, what, func(t *testing.T, f world.Fault) {
			f.Effect = uint64(begin + i + 1)
			killAt(t, f, "stop", want)
		})
	}
}

// killAround runs f once for each way to kill somebody around an effect.
func killAround(t *testing.T, what string, f func(*testing.T, world.Fault)) {
	for _, do := range []world.Action{world.KillDaemon, world.KillPlugin} {
		for _, at := range []world.Point{world.Before, world.After} {
			t.Run(fmt.Sprintf("%s %s %s", do, at, what), func(t *testing.T) {
				t.Parallel()
				f(t, world.Fault{Do: do, At: at})
			})
		}
	}
}

// TestKillDuringUndo: a creation fails for good, and what takes it back is
// killed on the way.
func TestKillDuringUndo(t *testing.T) {
	t.Parallel()
	never := world.Fault{Do: world.Fail, At: world.Before, Op: "vm.finish", Times: -1, Class: "invalid", Message: "no such disk"}
	for _, op := range []string{"vm.discard", "network.detach"} {
		killAround(t, op, func(t *testing.T, f world.Fault) {
			f.Op = op
			s := testkit.NewSim(t)
			if err := s.World.SetFaults(t.Context(), f, never); err != nil {
				t.Fatal(err)
			}
			s.Begin(t)
			stop := s.KeepUp(t)
			job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: life}).ID)
			if job.State != string(lab.JobFailed) || !strings.Contains(job.Reason, "no such disk") {
				t.Errorf("the job is %s: %q", job.State, job.Reason)
			}
			awaitIdle(t, s)
			awaitFaults(t, s, 1)
			s.AwaitUp(t)
			stop()
			checkClean(t, s)
		})
	}
}

// TestKillAtCall kills at calls that change nothing in the world, or whose
// answer the guest waits for.
func TestKillAtCall(t *testing.T) {
	t.Parallel()
	for _, do := range []world.Action{world.KillDaemon, world.KillPlugin} {
		for _, op := range []string{"host.check", "secrets.open", "guest.fetch", "guest.log", "guest.upload", "guest.report.*", "vm.list"} {
			t.Run(fmt.Sprintf("%s %s", do, op), func(t *testing.T) {
				t.Parallel()
				killAt(t, world.Fault{Do: do, At: world.Call, Op: op}, "sim", nil)
			})
		}
	}
}

// killAt runs the life with one fault. want is the story it shall have.
func killAt(t *testing.T, f world.Fault, profile string, want []string) {
	t.Helper()
	s := testkit.NewSim(t)
	if err := s.World.SetFaults(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	s.Begin(t)
	stop := s.KeepUp(t)
	job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: life, Profile: profile}).ID)
	endSandbox(t, s, job)
	awaitFaults(t, s, 0)
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

// awaitFaults waits until only n faults have not struck.
func awaitFaults(t *testing.T, s *testkit.Sim, n int) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, "the fault strikes", func() bool {
		waiting, err := s.World.Faults()
		return err == nil && len(waiting) == n
	})
}
