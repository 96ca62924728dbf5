package crash_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// pluginOf is the plugin of a kind as the daemon sees it.
func pluginOf(t *testing.T, s *testkit.Sim, kind string) api.PluginInfo {
	t.Helper()
	p, err := s.Client.Plugin(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// done counts how often something was done in the world.
func done(t *testing.T, s *testkit.Sim, op string) int {
	t.Helper()
	n := 0
	for _, e := range effects(t, s) {
		if e.Op == op {
			n++
		}
	}
	return n
}

// TestKillPluginDuringCreates kills one plugin while fifty sandboxes are made.
// All arrive, each thing happens once, and nothing is left when they have gone.
func TestKillPluginDuringCreates(t *testing.T) {
	const boxes = 50
	for _, kind := range []string{"hypervisor", "network", "secrets"} {
		t.Run(kind, func(t *testing.T) {
			s := testkit.NewSim(t)
			// So that the kill finds machines made, being made and still to come.
			slow := world.Fault{Do: world.Delay, At: world.Call, Op: "vm.create", Times: -1, For: world.Duration(100 * time.Millisecond)}
			if err := s.World.SetFaults(t.Context(), slow); err != nil {
				t.Fatal(err)
			}
			s.Start(t)
			pid := pluginOf(t, s, kind).PID
			var ids []string
			for n := range boxes {
				a, err := s.Client.CreateSandbox(t.Context(), api.SandboxCreate{Profile: "sim"})
				if err != nil {
					t.Fatalf("sandbox %d: %v", n, err)
				}
				ids = append(ids, a.Sandbox.ID)
				if n == boxes/2 {
					testkit.Eventually(t, patient, "a machine is made", func() bool { return done(t, s, "vm.create") > 0 })
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
			}
			if made := done(t, s, "vm.create"); made == boxes {
				t.Error("the kill came when all machines were made")
			}
			for _, id := range ids {
				awaitSandbox(t, s, id, lab.SandboxReady)
			}
			awaitIdle(t, s)
			if got := left(t, s.World); len(got) < 2*boxes {
				t.Fatalf("with %d sandboxes the world holds only %d things", boxes, len(got))
			}
			if n, m := done(t, s, "vm.create"), done(t, s, "network.attach"); n != boxes || m != boxes {
				t.Errorf("%d machines and %d policies were made for %d sandboxes", n, m, boxes)
			}
			// Only what was under way when the plugin died may have noticed.
			if failed, err := all(t.Context(), s, lab.EventStepFailed); err != nil || len(failed) > boxes/2 {
				t.Errorf("%d steps failed, %v", len(failed), err)
			} else {
				t.Logf("%d steps were tried again", len(failed))
			}
			p := pluginOf(t, s, kind)
			if p.PID == pid || p.State != "ready" || p.Restarts != 1 || len(p.Crashes) != 1 || p.Crashes[0].Reason != "killed by SIGKILL" {
				t.Errorf("the plugin afterwards: %+v", p)
			}
			for _, id := range ids {
				if _, err := s.Client.DestroySandbox(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			checkClean(t, s)
		})
	}
}

// TestSwapUnderLoad replaces plugins while jobs run: no call is lost, so no step
// fails and no job does.
func TestSwapUnderLoad(t *testing.T) {
	t.Parallel()
	const jobs = 20
	s := testkit.NewSim(t)
	var slow []world.Fault // so that calls run whenever a process is replaced
	for _, op := range []string{"vm.create", "vm.power", "secrets.open"} {
		slow = append(slow, world.Fault{Do: world.Delay, At: world.Call, Op: op, Times: -1, For: world.Duration(150 * time.Millisecond)})
	}
	if err := s.World.SetFaults(t.Context(), slow...); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	before := s.PluginPIDs()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	var swaps []string
	wait.Go(func() {
		defer close(stop)
		for range 2 {
			for _, kind := range []string{"secrets", "hypervisor"} {
				time.Sleep(200 * time.Millisecond)
				if r := s.Run("plugin", "restart", kind); r.Code != 0 {
					t.Errorf("restart %s: exit %d, %s", kind, r.Code, r.Stderr)
				}
				swaps = append(swaps, kind)
			}
		}
	})
	var ids []string
	for n := range jobs {
		a, err := s.Client.CreateJob(ctx, api.JobCreate{Profile: "sim", RepoURL: repoURL, Task: fmt.Sprintf("sim:print=job%d sim:sleep=500ms sim:exit=0", n)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, a.Job.ID)
		time.Sleep(50 * time.Millisecond)
	}
	for _, id := range ids {
		if j := awaitJob(t, s, id); j.State != string(lab.JobCompleted) {
			t.Errorf("job %s is %s: %s", id, j.State, j.Reason)
		}
	}
	wait.Wait()
	awaitIdle(t, s)
	events, err := all(ctx, s, lab.EventStepFailed)
	if err != nil || len(events) > 0 {
		t.Errorf("steps failed: %v, %v", events, err)
	}
	if len(swaps) != 4 || pluginOf(t, s, "hypervisor").Restarts != 2 || pluginOf(t, s, "secrets").Restarts != 2 {
		t.Errorf("swapped were %q", swaps)
	}
	testkit.Eventually(t, 20*time.Second, "the old processes have ended", func() bool { return len(s.PluginPIDs()) == len(before) })
	for _, kind := range []string{"hypervisor", "secrets"} {
		p := pluginOf(t, s, kind)
		if len(p.Crashes) > 0 {
			t.Errorf("the end of an old process is taken for a crash: %+v", p.Crashes)
		}
		for _, c := range p.Calls {
			if c.Failed > 0 || c.Retries > 0 {
				t.Errorf("%s %s: %d calls, %d failed, %d were made again", kind, c.Method, c.Calls, c.Failed, c.Retries)
			}
		}
	}
	checkClean(t, s)
}

// all gives the events of a type so far.
func all(ctx context.Context, s *testkit.Sim, typ string) (out []api.Event, err error) {
	zero := int64(0)
	for e, err := range s.Client.Events(ctx, client.EventQuery{After: &zero, Types: []string{typ}, Once: true}) {
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
	return out, nil
}
