package lab

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// checkTable wants every target to be a state of the table, and every state
// that can be reached to lead to a final one.
func checkTable[S ~string](t *testing.T, table map[S][]S, first S, to func(S, S) error) {
	t.Helper()
	reached := []S{first}
	for i := 0; i < len(reached); i++ {
		for _, next := range table[reached[i]] {
			if _, ok := table[next]; !ok {
				t.Errorf("%s leads to %s, which is not in the table", reached[i], next)
			}
			if !slices.Contains(reached, next) {
				reached = append(reached, next)
			}
		}
	}
	for state, targets := range table {
		if state != first && !slices.Contains(reached, state) && state != S(SandboxSuspended) {
			t.Errorf("%s is never reached from %s", state, first)
		}
		for other := range table {
			want := slices.Contains(targets, other)
			err := to(state, other)
			var wrong *TransitionError
			if (err == nil) != want || (err != nil && !errors.As(err, &wrong)) {
				t.Errorf("%s to %s: error %v, allowed is %v", state, other, err, want)
			}
		}
	}
}

func TestTransitionTables(t *testing.T) {
	checkTable(t, sandboxTransitions, SandboxRequested, SandboxState.To)
	checkTable(t, jobTransitions, JobQueued, JobState.To)
	checkTable(t, operationTransitions, OpPending, OperationState.To)
	for state := range sandboxTransitions {
		if state.Live() && state.To(SandboxDestroyed) != nil {
			t.Errorf("a sandbox that is %s cannot be destroyed", state)
		}
	}
	for _, s := range []JobState{JobCompleted, JobFailed, JobTimeout, JobCancelled} {
		if !s.Ended() {
			t.Errorf("%s is not final", s)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "box-1", "7up", strings.Repeat("x", 40)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "1042", "sbx_1", "a.b", strings.Repeat("x", 41), "a b"} {
		if CheckName(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestIDs(t *testing.T) {
	a, b := NewID("sbx"), NewID("sbx")
	if a == b || !strings.HasPrefix(a, "sbx_") || len(a) != len("sbx_")+16 {
		t.Errorf("ids %q and %q", a, b)
	}
	if got := OwnerMark("u", "sbx_1"); got != "agentlab:u/sbx_1" || !strings.HasPrefix(got, OwnerPrefix("u")) {
		t.Errorf("owner mark = %q", got)
	}
}
