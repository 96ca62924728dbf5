package state

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

var (
	testRange = Range{
		First: 1000, Last: 1009, Subnet: netip.MustParsePrefix("10.77.0.0/16"),
		HostAddr: netip.MustParseAddr("10.77.0.1"), InterfacePattern: "tap%di0",
	}
	equalAddr = cmpopts.EquateComparable(netip.Addr{})
)

func open(t testing.TB) *Store {
	t.Helper()
	return openIn(t, t.TempDir())
}

func openIn(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(dir, "agentlab.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantClass(t testing.TB, err error, class fault.Class) {
	t.Helper()
	if fault.ClassOf(err) != class {
		t.Fatalf("error = %v (%s), want class %s", err, fault.ClassOf(err), class)
	}
}

func newSandbox(name string) lab.Sandbox {
	at := time.UnixMilli(time.Now().UnixMilli()).UTC()
	return lab.Sandbox{
		ID: lab.NewID("sbx"), Name: name, Owner: "agentlab:u/" + name, State: lab.SandboxRequested, Profile: "p", Generation: 1,
		Spec:      lab.Spec{Template: "9000", Cores: 2, MemoryMB: 512, NetworkMode: "nat", OnJobEnd: "destroy", TTL: time.Hour},
		CreatedAt: at,
	}
}

// putSandbox stores a new sandbox that holds an address.
func putSandbox(t testing.TB, s *Store, name string) lab.Sandbox {
	t.Helper()
	sb := newSandbox(name)
	check(t, s.Submit(t.Context(), Submission{Sandbox: &sb}))
	return firstOf(s.Reserve(t.Context(), sb.ID, testRange))
}

func firstOf(sb lab.Sandbox, err error) lab.Sandbox {
	if err != nil {
		panic(err)
	}
	return sb
}

func putJob(t testing.TB, s *Store, sandboxID string) lab.Job {
	t.Helper()
	j := lab.Job{ID: lab.NewID("job"), SandboxID: sandboxID, State: lab.JobQueued, ExitCode: -1, Task: "work", CreatedAt: time.UnixMilli(5).UTC()}
	check(t, s.Submit(t.Context(), Submission{Job: &j}))
	return j
}

func hash(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

func TestRowsSurviveTheRoundTrip(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	sb := newSandbox("box")
	sb.Keep, sb.JobID, sb.Spec.NetworkAllow = true, "job_1", []string{"192.0.2.1:443"}
	j := lab.Job{
		ID: "job_1", SandboxID: sb.ID, State: lab.JobQueued, ExitCode: -1, Task: "t", Profile: "p", RepoURL: "u",
		Ref: "main", Mode: "dangerous", CreatedAt: sb.CreatedAt,
	}
	op := lab.Operation{ID: "op_1", Kind: lab.OpCreateSandbox, Subject: sb.ID, JobID: j.ID, State: lab.OpPending, CreatedAt: sb.CreatedAt}
	check(t, s.Submit(ctx, Submission{Sandbox: &sb, Job: &j, Operation: &op}))

	if diff := cmp.Diff(sb, firstOf(s.Sandbox(ctx, sb.ID)), equalAddr); diff != "" {
		t.Errorf("sandbox (-want +got):\n%s", diff)
	}
	gotJob, err := s.Job(ctx, j.ID)
	if diff := cmp.Diff(j, gotJob); err != nil || diff != "" {
		t.Errorf("job: %v (-want +got):\n%s", err, diff)
	}
	gotOp, err := s.Operation(ctx, op.ID)
	if diff := cmp.Diff(op, gotOp, cmpopts.IgnoreFields(lab.Operation{}, "UpdatedAt")); err != nil || diff != "" {
		t.Errorf("operation: %v (-want +got):\n%s", err, diff)
	}
	_, err = s.Job(ctx, "job_none")
	wantClass(t, err, fault.NotFound)
}

func TestNameOfALiveSandboxIsTaken(t *testing.T) {
	s := open(t)
	first := putSandbox(t, s, "box")
	second := newSandbox("box")
	err := s.Submit(t.Context(), Submission{Sandbox: &second})
	wantClass(t, err, fault.Exists)
	if n := len(eventsOf(s, EventFilter{SandboxID: second.ID})); n != 0 {
		t.Errorf("%d events of a sandbox that was refused", n)
	}
	check(t, s.Commit(t.Context(), Commit{Sandboxes: []SandboxChange{{ID: first.ID, To: lab.SandboxDestroyed}}}))
	check(t, s.Submit(t.Context(), Submission{Sandbox: &second}))
}

func eventsOf(s *Store, f EventFilter) []lab.Event {
	events, err := s.Events(context.Background(), f)
	if err != nil {
		panic(err)
	}
	return events
}

func TestFindSandboxPrefersTheLiveOne(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	old := putSandbox(t, s, "box")
	check(t, s.Commit(ctx, Commit{Sandboxes: []SandboxChange{{ID: old.ID, To: lab.SandboxDestroyed}}}))
	if got := firstOf(s.FindSandbox(ctx, "1000")); got.ID != old.ID {
		t.Errorf("VMID of a destroyed sandbox finds %s", got.ID)
	}
	live := newSandbox("box")
	check(t, s.Submit(ctx, Submission{Sandbox: &live}))
	one := testRange
	one.Last = 1000
	live = firstOf(s.Reserve(ctx, live.ID, one))
	for _, ref := range []string{"1000", "box", live.ID} {
		if got := firstOf(s.FindSandbox(ctx, ref)); got.ID != live.ID {
			t.Errorf("FindSandbox(%q) = %s, want %s", ref, got.ID, live.ID)
		}
	}
	if got := firstOf(s.FindSandbox(ctx, old.ID)); got.ID != old.ID {
		t.Errorf("FindSandbox by id = %s, want %s", got.ID, old.ID)
	}
	for _, ref := range []string{"0", "9", "none", "sbx_none", ""} {
		_, err := s.FindSandbox(ctx, ref)
		wantClass(t, err, fault.NotFound)
	}
	if got := firstOf(s.SandboxByAddress(ctx, live.Address)); got.ID != live.ID {
		t.Errorf("address finds %s, want the live one", got.ID)
	}
}

func TestOperationChangeNeedsTheRowAsItWas(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	sb := putSandbox(t, s, "box")
	op := lab.Operation{ID: "op_1", Kind: lab.OpCreateSandbox, Subject: sb.ID, State: lab.OpPending}
	check(t, s.Submit(ctx, Submission{Operation: &op}))
	again := op
	again.ID = "op_2"
	wantClass(t, s.Submit(ctx, Submission{Operation: &again}), fault.Exists)

	running := op
	running.State, running.Step, running.Attempt = lab.OpRunning, "reserve", 1
	check(t, s.Commit(ctx, Commit{Operations: []OperationChange{{Was: op, Now: running}}}))
	wantClass(t, s.Commit(ctx, Commit{Operations: []OperationChange{{Was: op, Now: running}}}), fault.Conflict)
	back := running
	back.State = lab.OpPending
	wantClass(t, s.Commit(ctx, Commit{Operations: []OperationChange{{Was: running, Now: back}}}), fault.Precondition)

	// A cancel request in between must not be overlooked.
	destroy := lab.Operation{ID: "op_3", Kind: lab.OpDestroySandbox, Subject: sb.ID, State: lab.OpPending}
	got, err := s.SubmitDestroy(ctx, destroy, "")
	if err != nil || got.ID != "op_3" {
		t.Fatalf("SubmitDestroy = %s, %v", got.ID, err)
	}
	destroy.ID = "op_4"
	if got, err = s.SubmitDestroy(ctx, destroy, ""); err != nil || got.ID != "op_3" {
		t.Errorf("second SubmitDestroy = %s, %v, want the open one", got.ID, err)
	}
	done := running
	done.State = lab.OpDone
	wantClass(t, s.Commit(ctx, Commit{Operations: []OperationChange{{Was: running, Now: done}}}), fault.Conflict)
}

func TestCommitIsAllOrNothing(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	a := putSandbox(t, s, "a")
	b := putSandbox(t, s, "b")
	err := s.Commit(ctx, Commit{Sandboxes: []SandboxChange{
		{ID: a.ID, To: lab.SandboxProvisioning},
		{ID: b.ID, To: lab.SandboxRunning},
	}})
	var wrong *lab.TransitionError
	if !errors.As(err, &wrong) {
		t.Errorf("error = %v, want one that names the transition", err)
	}
	if got := firstOf(s.Sandbox(ctx, a.ID)); got.State != lab.SandboxRequested {
		t.Errorf("first sandbox is %s after a commit that failed", got.State)
	}
}

// fastDir is a directory for tests that commit thousands of times, in memory
// where the machine has such a file system: they test order, not the disk.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "agentlab-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
