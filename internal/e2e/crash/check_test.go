package crash_test

import (
	"slices"
	"testing"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

func effects(t *testing.T, s *testkit.Sim) []world.Effect {
	t.Helper()
	log, err := s.World.Effects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestWrongEffects shows that the check finds what it is for.
func TestWrongEffects(t *testing.T) {
	life := []world.Effect{
		{Op: "network.attach", Subject: "sbx_a"},
		{Op: "vm.create", Subject: "1000", Owner: "host/sbx_a"},
		{Op: "vm.destroy", Subject: "1000", Owner: "host/sbx_a"},
		{Op: "network.detach", Subject: "sbx_a"},
	}
	cut := slices.Concat(life[:2], life[3:], life[2:3]) // before it was destroyed
	for _, good := range [][]world.Effect{life, cut} {
		if w := testkit.WrongEffects(good); w != nil {
			t.Errorf("a good life: %q", w)
		}
	}
	for name, log := range map[string][]world.Effect{
		"left":       life[:2],
		"attached":   slices.Concat(life[:1], life[1:3]),
		"made twice": slices.Concat(life[:2], life[1:]),
		"two VMs":    slices.Concat(life[:2], []world.Effect{{Op: "vm.create", Subject: "1001", Owner: "host/sbx_a"}, {Op: "vm.destroy", Subject: "1001", Owner: "host/sbx_a"}}, life[2:]),
		"again":      slices.Concat(life[:3], life[1:]),
		"gone twice": slices.Concat(life, life[2:3]),
		"cut off":    slices.Concat(cut[:3], []world.Effect{{Op: "vm.power", Subject: "1000", Owner: "host/sbx_a"}}, cut[3:]),
		"broken":     slices.Concat(life, []world.Effect{{Op: "vm.power", Broken: "no policy"}}),
	} {
		if testkit.WrongEffects(log) == nil {
			t.Errorf("%s: nothing found", name)
		}
	}
}

// checkClean expects that the daemon is idle, the world empty, its log without
// fault, and the rows consistent with their events.
func checkClean(t *testing.T, s *testkit.Sim) {
	t.Helper()
	awaitIdle(t, s)
	for _, what := range left(t, s.World) {
		t.Errorf("left behind: %s", what)
	}
	for _, what := range testkit.WrongEffects(effects(t, s)) {
		t.Error(what)
	}
	checkRows(t, s)
}

// checkRows compares every row with the events that tell its story.
func checkRows(t *testing.T, s *testkit.Sim) {
	t.Helper()
	boxes, err := s.Client.Sandboxes(t.Context(), client.SandboxQuery{All: true})
	if err != nil || len(boxes) == 0 {
		t.Fatalf("%d sandboxes, %v", len(boxes), err)
	}
	for _, sb := range boxes {
		events, err := s.Client.SandboxEvents(t.Context(), sb.ID, 1000)
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := s.Client.Jobs(t.Context(), client.JobQuery{SandboxID: sb.ID})
		if err != nil {
			t.Fatal(err)
		}
		ops, err := s.Client.Operations(t.Context(), client.OperationQuery{SandboxID: sb.ID})
		if err != nil || len(ops) == 0 {
			t.Fatalf("%d operations of %s, %v", len(ops), sb.ID, err)
		}
		checkStory(t, sb.ID, lab.EventSandboxChanged, sb.State, events)
		for _, j := range jobs {
			own := slices.DeleteFunc(slices.Clone(events), func(e api.Event) bool { return e.JobID != j.ID })
			checkStory(t, j.ID, lab.EventJobChanged, j.State, own)
			if !lab.JobState(j.State).Ended() {
				t.Errorf("job %s is still %s", j.ID, j.State)
			}
		}
		for _, op := range ops {
			checkOperation(t, op, events)
		}
	}
}

// checkStory expects that each change begins where the one before it ended,
// and the last leads to the state of the row.
func checkStory(t *testing.T, id, typ, state string, events []api.Event) {
	t.Helper()
	at := ""
	for _, e := range events {
		if e.Type != typ {
			continue
		}
		if at != "" && e.Fields["from"] != at {
			t.Errorf("%s: event %d goes from %s, but it was %s", id, e.ID, e.Fields["from"], at)
		}
		at = e.Fields["to"]
	}
	if at != state {
		t.Errorf("%s is %s, its last event says %q", id, state, at)
	}
}

func checkOperation(t *testing.T, op api.Operation, events []api.Event) {
	t.Helper()
	var ends []string
	for _, e := range events {
		if e.Type == lab.EventOperationEnded && e.Operation == op.ID {
			ends = append(ends, e.Fields["state"])
		}
	}
	if len(ends) != 1 || ends[0] != op.State {
		t.Errorf("%s %s is %s, its ends are %q", op.Kind, op.ID, op.State, ends)
	}
}
