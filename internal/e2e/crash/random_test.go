package crash_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/fault"
)

// promise is how a job must end whatever is killed meanwhile.
type promise struct {
	task     string
	ttl      int64 // seconds
	cancel   bool
	state    lab.JobState
	exitCode int
	reason   string // pattern; "" for none at all
	log      string // "" is not looked at
}

var promises = []promise{
	{task: "sim:sleep=2s sim:print=done", state: lab.JobCompleted, log: "the simulated agent begins\ndone\nthe simulated agent ends\n"},
	{task: "sim:log=150KB sim:sleep=1s sim:log=150KB sim:artifact=big:400KB", state: lab.JobCompleted, log: "the simulated agent begins\n" +
		fill(150<<10) + fill(150<<10) + "the simulated agent ends\n"},
	{task: "sim:sleep=500ms sim:exit=3", state: lab.JobFailed, exitCode: 3, reason: "ended with code 3"},
	{task: "sim:hang", ttl: 5, state: lab.JobTimeout, exitCode: 124, reason: "time is over"},
	{task: "sim:hang", cancel: true, state: lab.JobCancelled, exitCode: -1, reason: "cancelled"},
	// A step that was cut off just behind the power-on may boot it once more.
	{task: "sim:sleep=2s sim:poweroff", state: lab.JobFailed, exitCode: -1, reason: "VM stopped|rebooted"},
	{task: "sim:sleep=2s sim:reboot", state: lab.JobFailed, exitCode: -1, reason: "rebooted"},
}

// fill is what sim:log writes.
func fill(n int) string {
	const line = "the simulated agent thinks about it and writes this line of 64\n\n"
	return strings.Repeat(line, n/len(line)+1)[:n]
}

const (
	randomJobs  = 21
	randomBoxes = 10
	chaos       = 15 * time.Second // at least
	fewestKills = 6                // of the daemon, and of plugins
)

// newSeed gives the run's random numbers; AGENTLAB_SEED repeats a run.
func newSeed(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("AGENTLAB_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed: AGENTLAB_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestKillAtRandom kills the daemon and its plugins again and again while many
// jobs and sandboxes are made, run, cancelled and destroyed.
func TestKillAtRandom(t *testing.T) {
	t.Parallel()
	random := newSeed(t)
	s := testkit.NewSim(t)
	s.Start(t)
	stop := s.KeepUp(t)
	var killer sync.WaitGroup
	killer.Go(func() { killOften(s, random, time.Now().Add(chaos)) })
	var work sync.WaitGroup
	for i := range randomJobs {
		work.Go(func() { keepPromise(t, s, i, promises[i%len(promises)]) })
	}
	for i := range randomBoxes {
		work.Go(func() { useSandbox(t, s, fmt.Sprintf("box-%d", i)) })
	}
	work.Wait()
	killer.Wait()
	s.AwaitUp(t)
	if got := stop(); got < fewestKills {
		t.Errorf("the daemon was killed only %d times", got)
	}
	checkClean(t, s)
	made := 0
	for _, e := range effects(t, s) {
		if e.Op == "vm.create" {
			made++
		}
	}
	if made < randomJobs/2+randomBoxes { // jobs cancelled at once have no VM
		t.Errorf("only %d VMs were made", made)
	}
}

// killOften kills now the daemon, now a plugin.
func killOften(s *testkit.Sim, random *rand.Rand, until time.Time) {
	daemons, plugins := 0, 0
	for time.Now().Before(until) || daemons < fewestKills || plugins < fewestKills {
		time.Sleep(time.Duration(100+random.IntN(1400)) * time.Millisecond)
		if random.IntN(5) < 2 {
			s.Kill()
			daemons++
			continue
		}
		plugins += s.KillPlugins(func(n int) []int {
			if n == 0 {
				return nil
			}
			return []int{random.IntN(n)}
		})
	}
}

func keepPromise(t *testing.T, s *testkit.Sim, i int, p promise) {
	job := submit(t, s, api.JobCreate{Task: fmt.Sprintf("job %d: %s", i, p.task), TTLSeconds: p.ttl})
	if p.cancel {
		time.Sleep(time.Duration(i) * 300 * time.Millisecond)
		_, err := retried(t, func(ctx context.Context) (api.Accepted, error) { return s.Client.CancelJob(ctx, job.ID) })
		if err != nil && !errors.Is(err, fault.Precondition) { // an answer was lost, and it has ended
			t.Errorf("%s: cancel: %v", job.Task, err)
		}
	}
	job = awaitJob(t, s, job.ID)
	if job.State != string(p.state) || (job.Reason == "") != (p.reason == "") || !regexp.MustCompile(p.reason).MatchString(job.Reason) {
		t.Errorf("%s: %s, %q, want %s, %q", job.Task, job.State, job.Reason, p.state, p.reason)
	}
	if p.exitCode >= 0 && (job.ExitCode == nil || *job.ExitCode != p.exitCode) {
		t.Errorf("%s: exit code %v, want %d", job.Task, job.ExitCode, p.exitCode)
	}
	if p.log == "" {
		return
	}
	log, err := retried(t, func(ctx context.Context) (string, error) {
		var b strings.Builder
		err := s.Client.FollowLog(ctx, job.ID, client.LogQuery{}, &b)
		return b.String(), err
	})
	if err != nil || log != p.log {
		t.Errorf("%s: the log has %d bytes, want %d, %v", job.Task, len(log), len(p.log), err)
	}
}

func useSandbox(t *testing.T, s *testkit.Sim, name string) {
	sb := newSandbox(t, s, name)
	awaitSandbox(t, s, sb.ID, lab.SandboxReady)
	_, err := retried(t, func(ctx context.Context) (api.Accepted, error) { return s.Client.DestroySandbox(ctx, sb.ID) })
	if err != nil {
		t.Errorf("destroy %s: %v", name, err)
	}
	awaitSandbox(t, s, sb.ID, lab.SandboxDestroyed)
}
