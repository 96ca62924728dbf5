package crash_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// TestPowerCut: the host goes down and comes back. Its sandboxes are stopped,
// not failed; a job that ran says that its VM stopped.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	idle := awaitSandbox(t, s, newSandbox(t, s, "idle").ID, lab.SandboxReady)
	kept := submit(t, s, api.JobCreate{Task: "sim:exit=0", Keep: true})
	awaitJob(t, s, kept.ID)
	awaitSandbox(t, s, kept.SandboxID, lab.SandboxReady)
	running := submit(t, s, api.JobCreate{Task: "sim:hang"})
	awaitJobState(t, s, running.ID, lab.JobRunning)
	awaitGuest(t, s, sandbox(t, s, running.SandboxID).VMID)

	s.Kill()
	cut(t, s)
	s.Start(t)
	for _, id := range []string{idle.ID, kept.SandboxID} {
		sb := awaitSandbox(t, s, id, lab.SandboxStopped)
		if !strings.Contains(sb.Reason, "host was shut down or rebooted") {
			t.Errorf("sandbox %s is stopped because %q", sb.Name, sb.Reason)
		}
	}
	expectStoppedJob(t, s, running.ID)
	awaitSandbox(t, s, running.SandboxID, lab.SandboxDestroyed)
	for _, id := range []string{idle.ID, kept.SandboxID} {
		if _, err := s.Client.DestroySandbox(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	checkClean(t, s)
}

// TestPowerCutSeen: the machines go off while the daemon looks.
func TestPowerCutSeen(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	job := submit(t, s, api.JobCreate{Task: "sim:hang"})
	awaitJobState(t, s, job.ID, lab.JobRunning)
	cut(t, s)
	expectStoppedJob(t, s, job.ID)
	checkClean(t, s)
}

// TestPowerCutDuringBoot: a guest that had not said hello is not waited for.
func TestPowerCutDuringBoot(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	if err := s.World.SetFaults(t.Context(), world.Fault{Do: world.Fail, At: world.Call, Op: "guest.fetch", Times: -1}); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	job := submit(t, s, api.JobCreate{Task: "sim:exit=0"})
	sb := awaitSandbox(t, s, job.SandboxID, lab.SandboxBooting)
	awaitGuest(t, s, sb.VMID)
	// Before this is written down, the next daemon would boot the VM once more.
	testkit.Eventually(t, patient, "the power-on is written down", func() bool {
		return slices.ContainsFunc(sandboxEvents(t, s, sb.ID, lab.EventStepFinished), func(e api.Event) bool {
			return e.Fields["step"] == "start-vm"
		})
	})
	s.Kill()
	cut(t, s)
	s.Start(t)
	ended := awaitJob(t, s, job.ID)
	if ended.State != string(lab.JobFailed) || !strings.Contains(ended.Reason, "the VM stopped") {
		t.Errorf("the job is %s: %q", ended.State, ended.Reason)
	}
	checkClean(t, s)
}

func cut(t *testing.T, s *testkit.Sim) {
	t.Helper()
	if err := s.World.PowerCut(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func expectStoppedJob(t *testing.T, s *testkit.Sim, id string) {
	t.Helper()
	j := awaitJob(t, s, id)
	if j.State != string(lab.JobFailed) || j.Reason != "the VM stopped while the job ran" {
		t.Errorf("the job is %s: %q", j.State, j.Reason)
	}
}
