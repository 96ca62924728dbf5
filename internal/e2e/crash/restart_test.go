package crash_test

import (
	"testing"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// TestRestartsAreNoFailures: a step that is cut off more often than it may fail
// still has all its retries.
func TestRestartsAreNoFailures(t *testing.T) {
	t.Parallel()
	const kills = 9
	s := testkit.NewSim(t)
	if err := s.World.SetFaults(t.Context(),
		world.Fault{Do: world.KillDaemon, At: world.Before, Op: "vm.create", Times: kills},
		world.Fault{Do: world.Fail, At: world.Before, Op: "vm.create", Times: 2},
	); err != nil {
		t.Fatal(err)
	}
	s.Begin(t)
	stop := s.KeepUp(t)
	job := awaitJob(t, s, submit(t, s, api.JobCreate{Task: life}).ID)
	awaitIdle(t, s)
	if got := stop(); got != kills {
		t.Errorf("the daemon was killed %d times, want %d", got, kills)
	}
	checkLife(t, s, job)
	var failed []string
	for _, e := range sandboxEvents(t, s, job.SandboxID, lab.EventStepFailed) {
		failed = append(failed, e.Fields["step"])
	}
	ops, err := s.Client.Operations(t.Context(), client.OperationQuery{SandboxID: job.SandboxID})
	if err != nil || len(ops) != 3 || len(failed) != 2 {
		t.Errorf("failed steps %q, %d operations, %v", failed, len(ops), err)
	}
}
