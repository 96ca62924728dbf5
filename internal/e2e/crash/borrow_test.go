package crash_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
)

// guestCalls are the calls of a guest that takes on a job and runs it. Two of
// them come as often as time allows.
var guestCalls = []string{
	idleCall, "guest.fetch", "guest.report.clone", "guest.repo", "guest.report.agent", "guest.log",
	beatCall, "guest.report.upload", "guest.upload", "guest.report.finished",
}

const (
	idleCall = "guest.report.idle"
	beatCall = "guest.report.heartbeat"
)

// upload gives the host a repository; a simulated guest does not look into it.
func upload(t *testing.T, s *testkit.Sim) (id string) {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "meta.json", Mode: 0o600, Size: 2}), write(w, "{}"), w.Close()); err != nil {
		t.Fatal(err)
	}
	repo, err := s.Client.UploadRepo(t.Context(), &archive)
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	return repo.ID
}

func write(w *tar.Writer, text string) error {
	_, err := w.Write([]byte(text))
	return err
}

func uploads(t *testing.T, s *testkit.Sim) (names []string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(s.Dir, "data", "repos"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// borrow submits a job with an upload for the sandbox. If there are faults, the
// guest hears of the job only when they are set.
func borrow(t *testing.T, s *testkit.Sim, sandboxID, task string, faults ...world.Fault) (job api.Job, repoID string) {
	t.Helper()
	set := func(list ...world.Fault) {
		if err := s.World.SetFaults(t.Context(), list...); err != nil {
			t.Fatal(err)
		}
	}
	if len(faults) > 0 {
		set(world.Fault{Op: idleCall, Do: world.Fail, Times: -1})
	}
	repoID = upload(t, s)
	job = submit(t, s, api.JobCreate{Task: task, Sandbox: sandboxID, RepoID: repoID})
	if len(faults) > 0 {
		if got := uploads(t, s); len(got) != 1 || got[0] != repoID {
			t.Fatalf("before the job begins there are the uploads %q, want %s", got, repoID)
		}
		set(faults...)
	}
	return job, repoID
}

// checkBorrowed expects that the job ended as its task says, and that its
// sandbox is free again and has its secrets, but nothing of the job's.
func checkBorrowed(t *testing.T, s *testkit.Sim, job api.Job, repoID string) {
	t.Helper()
	sb := awaitSandbox(t, s, job.SandboxID, lab.SandboxReady)
	awaitIdle(t, s)
	checkJob(t, s, job)
	if got := uploads(t, s); len(got) > 0 {
		t.Errorf("uploads left: %q", got)
	}
	_, err := s.Client.CreateJob(t.Context(), api.JobCreate{Task: "again", RepoID: repoID, Sandbox: sb.ID})
	if err == nil || !strings.Contains(err.Error(), "no uploaded repository") {
		t.Errorf("a second job with the upload: %v", err)
	}
	console, err := s.World.Console(sb.VMID)
	if err != nil || !strings.Contains(string(console), "job "+job.ID+" has its repository") {
		t.Errorf("the guest did not get the upload: %v\n%s", err, console)
	}
	if p := payloadOf(t, s, job); p.Job != nil || !strings.Contains(string(p.Secrets), planted) {
		t.Errorf("after its job a borrowed sandbox is told: job %v, %d bytes of secrets", p.Job, len(p.Secrets))
	}
}

const planted = "planted-s1mW7rQ4" // in testkit.SimBundle

// payloadOf asks for the payload as the job's sandbox does.
func payloadOf(t *testing.T, s *testkit.Sim, job api.Job) (p guestapi.Payload) {
	t.Helper()
	in := breakInto(t, s, job)
	status, answer := ask(t, s, in.address, in.credential, guestapi.FetchPath, nil,
		guestapi.FetchRequest{HostKey: in.hostKey, BootID: "x", Runner: "x"})
	if err := json.Unmarshal(answer, &p); err != nil || status != http.StatusOK {
		t.Fatalf("fetch payload: status %d, %v", status, err)
	}
	return p
}

// giveBack destroys the sandbox, after which nothing may be left.
func giveBack(t *testing.T, s *testkit.Sim, sandboxID string) {
	t.Helper()
	_, err := retried(t, func(ctx context.Context) (api.Accepted, error) { return s.Client.DestroySandbox(ctx, sandboxID) })
	if err != nil {
		t.Fatalf("destroy: %v", err)
	}
	awaitSandbox(t, s, sandboxID, lab.SandboxDestroyed)
}

// lend makes a sandbox, runs two jobs in it and destroys it.
func lend(t *testing.T, s *testkit.Sim, faults ...world.Fault) {
	t.Helper()
	stop := s.KeepUp(t)
	sb := awaitSandbox(t, s, newSandbox(t, s, "box").ID, lab.SandboxReady)
	job, repoID := borrow(t, s, sb.ID, "first "+life, faults...)
	job = awaitJob(t, s, job.ID)
	if len(faults) == 1 {
		awaitFaults(t, s, 0)
		s.AwaitUp(t)
	}
	checkBorrowed(t, s, job, repoID)
	job, repoID = borrow(t, s, sb.ID, "second "+life)
	checkBorrowed(t, s, awaitJob(t, s, job.ID), repoID)
	giveBack(t, s, sb.ID)
	if len(faults) == 1 {
		if got, want := stop(), map[world.Action]int{world.KillDaemon: 1}[faults[0].Do]; got != want {
			t.Errorf("the daemon was killed %d times, want %d", got, want)
		}
	}
}

// lentUndisturbed counts what a sandbox that is lent does: the calls of its guest
// during the first job, and the effects of its whole life.
func lentUndisturbed(t *testing.T) (calls map[string]int, happened []string) {
	t.Helper()
	const many = 10_000
	s := testkit.NewSim(t)
	s.Start(t)
	sb := awaitSandbox(t, s, newSandbox(t, s, "box").ID, lab.SandboxReady)
	var counters []world.Fault
	for _, op := range append(guestCalls, "guest.*") {
		counters = append(counters, world.Fault{Op: op, Do: world.Delay, Times: many})
	}
	job, repoID := borrow(t, s, sb.ID, life, counters...)
	job = awaitJob(t, s, job.ID)
	counters, err := s.World.Faults()
	if err != nil {
		t.Fatal(err)
	}
	calls = map[string]int{}
	for _, f := range counters {
		calls[f.Op] = many - f.Times
	}
	for _, op := range guestCalls {
		if calls[op] == 0 {
			t.Errorf("the guest makes no call %s", op)
		}
	}
	if calls["guest.*"] > 0 {
		t.Errorf("the guest makes %d calls of which this test does not know", calls["guest.*"])
	}
	calls[idleCall], calls[beatCall] = 1, 1
	checkBorrowed(t, s, job, repoID)
	giveBack(t, s, sb.ID)
	checkClean(t, s)
	return calls, story(effects(t, s))
}

// TestKillWhileBorrowed kills the daemon before and after each call of a guest
// that runs a job in a person's sandbox, and around each effect of that
// sandbox's life.
func TestKillWhileBorrowed(t *testing.T) {
	t.Parallel()
	calls, want := lentUndisturbed(t)
	t.Logf("calls: %v, effects: %q", calls, want)
	killed := func(name string, f world.Fault, life func(*testing.T, *testkit.Sim)) {
		t.Run(fmt.Sprintf("%s %s %s", f.Do, f.At, name), func(t *testing.T) {
			t.Parallel()
			s := testkit.NewSim(t)
			life(t, s)
			checkClean(t, s)
			if d := cmp.Diff(want, story(effects(t, s))); d != "" {
				t.Errorf("what happened (- undisturbed, + here):\n%s", d)
			}
		})
	}
	during := func(op string, f world.Fault) {
		f.Op = op
		killed(fmt.Sprintf("%s %d", op, f.Skip+1), f, func(t *testing.T, s *testkit.Sim) {
			s.Start(t)
			lend(t, s, f)
		})
	}
	for _, op := range guestCalls {
		for n := range calls[op] {
			during(op, world.Fault{Do: world.KillDaemon, At: world.Call, Skip: n})
			during(op, world.Fault{Do: world.KillDaemon, At: world.After, Skip: n})
		}
		during(op, world.Fault{Do: world.KillPlugin, At: world.After})
	}
	during("vm.get", world.Fault{Do: world.KillDaemon, At: world.Call}) // the host looks at the VM behind the job
	during("secrets.open", world.Fault{Do: world.KillDaemon, At: world.Call})
	for i, what := range want {
		for _, at := range []world.Point{world.Before, world.After} {
			f := world.Fault{Do: world.KillDaemon, At: at, Effect: uint64(i + 1)}
			killed(what, f, func(t *testing.T, s *testkit.Sim) {
				if err := s.World.SetFaults(t.Context(), f); err != nil {
					t.Fatal(err)
				}
				s.Begin(t)
				lend(t, s)
				awaitFaults(t, s, 0)
				s.AwaitUp(t)
			})
		}
	}
}

// TestDestroyWhileBorrowed: somebody destroys the sandbox under the job, and the
// daemon is killed on the way.
func TestDestroyWhileBorrowed(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"vm.destroy", "network.detach"} {
		for _, at := range []world.Point{world.Before, world.After} {
			t.Run(fmt.Sprintf("%s %s", at, op), func(t *testing.T) {
				t.Parallel()
				s := testkit.NewSim(t)
				s.Start(t)
				stop := s.KeepUp(t)
				sb := awaitSandbox(t, s, newSandbox(t, s, "box").ID, lab.SandboxReady)
				job, _ := borrow(t, s, sb.ID, "sim:hang", world.Fault{Do: world.KillDaemon, At: at, Op: op})
				awaitJobState(t, s, job.ID, lab.JobRunning)
				giveBack(t, s, sb.ID)
				awaitFaults(t, s, 0)
				s.AwaitUp(t)
				if got := stop(); got != 1 {
					t.Errorf("the daemon was killed %d times", got)
				}
				if job = awaitJob(t, s, job.ID); job.State != string(lab.JobCancelled) || !strings.Contains(job.Reason, "destroyed") {
					t.Errorf("the job is %s: %q", job.State, job.Reason)
				}
				if got := uploads(t, s); len(got) > 0 {
					t.Errorf("uploads left: %q", got)
				}
				checkClean(t, s)
			})
		}
	}
}

// TestSecretsOfAKeptSandbox: the job that a sandbox was made for takes the
// secrets with it when it ends, also over a kill of the daemon. A job that
// borrows the sandbox later has them.
func TestSecretsOfAKeptSandbox(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	own := awaitJob(t, s, submit(t, s, api.JobCreate{Task: "own " + life, Keep: true}).ID)
	awaitSandbox(t, s, own.SandboxID, lab.SandboxReady)
	for range 2 {
		awaitIdle(t, s)
		checkJob(t, s, own)
		if p := payloadOf(t, s, own); p.Job != nil || len(p.Secrets) > 0 {
			t.Errorf("after the job it was made for a sandbox is told: job %v, %d bytes of secrets", p.Job, len(p.Secrets))
		}
		s.Kill()
		s.Start(t)
	}
	job, repoID := borrow(t, s, own.SandboxID, "borrowed "+life)
	checkBorrowed(t, s, awaitJob(t, s, job.ID), repoID)
	giveBack(t, s, own.SandboxID)
	checkClean(t, s)
}

// TestOneBorrowerAtATime: a sandbox that is lent is not lent again.
func TestOneBorrowerAtATime(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	sb := awaitSandbox(t, s, newSandbox(t, s, "box").ID, lab.SandboxReady)
	job, _ := borrow(t, s, sb.ID, "sim:hang")
	awaitJobState(t, s, job.ID, lab.JobRunning)
	_, err := s.Client.CreateJob(t.Context(), api.JobCreate{Task: "other", RepoURL: repoURL, Sandbox: sb.ID})
	if !errors.Is(err, fault.Precondition) {
		t.Errorf("a second borrower: %v", err)
	}
	if _, err := s.Client.CancelJob(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if job = awaitJob(t, s, job.ID); job.State != string(lab.JobCancelled) {
		t.Errorf("the job is %s: %q", job.State, job.Reason)
	}
	awaitSandbox(t, s, sb.ID, lab.SandboxReady)
	giveBack(t, s, sb.ID)
	checkClean(t, s)
}
