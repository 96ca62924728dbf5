package state

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestFirstReportStands(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	j := putJob(t, s, putSandbox(t, s, "a").ID)
	check(t, s.JobReported(ctx, j.ID, lab.JobReport{Status: "failed", ExitCode: 3}))
	check(t, s.JobReported(ctx, j.ID, lab.JobReport{Status: "completed"}))
	got, err := s.Job(ctx, j.ID)
	if err != nil || got.Reported == nil || got.Reported.Status != "failed" || got.Reported.ExitCode != 3 {
		t.Errorf("report is %+v, %v", got.Reported, err)
	}
}

func TestJobSeen(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	j := putJob(t, s, putSandbox(t, s, "a").ID)
	wake, stop := s.WatchSandbox(j.SandboxID)
	defer stop()
	at := time.UnixMilli(1_000_000).UTC()
	see := func(stage string, after time.Duration, wantCancel bool, wantSeen time.Duration) {
		t.Helper()
		cancel, err := s.JobSeen(ctx, j.ID, stage, at.Add(after))
		check(t, err)
		got, err := s.Job(ctx, j.ID)
		check(t, err)
		if cancel != wantCancel || got.LastSeen.Sub(at) != wantSeen {
			t.Errorf("cancel %v, seen %s; want %v, %s", cancel, got.LastSeen.Sub(at), wantCancel, wantSeen)
		}
	}
	see("", 0, false, 0)
	select {
	case <-wake:
	default:
		t.Error("the first sign of life wakes nobody")
	}
	see("", 2*time.Second, false, 0) // too soon to write
	see("clone", 3*time.Second, false, 3*time.Second)
	see("clone", 12*time.Second, false, 3*time.Second)
	see("clone", 14*time.Second, false, 14*time.Second)
	check(t, s.RequestCancel(ctx, j.ID))
	see("clone", 15*time.Second, true, 14*time.Second)
	check(t, s.Commit(ctx, Commit{Jobs: []JobChange{{ID: j.ID, To: lab.JobCancelled}}}))
	see("agent", 60*time.Second, true, 14*time.Second)
	wantClass(t, s.RequestCancel(ctx, j.ID), fault.Precondition)
	_, err := s.JobSeen(ctx, "job_none", "", at)
	wantClass(t, err, fault.NotFound)
}

func TestStrandedJobs(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	a, b := putSandbox(t, s, "a"), putSandbox(t, s, "b")
	stranded, worked := putJob(t, s, a.ID), putJob(t, s, b.ID)
	check(t, s.Submit(ctx, Submission{Operation: &lab.Operation{ID: "op_1", Kind: lab.OpRunJob, Subject: b.ID, JobID: worked.ID, State: lab.OpPending}}))
	got, err := s.StrandedJobs(ctx)
	if err != nil || len(got) != 1 || got[0].ID != stranded.ID {
		t.Errorf("stranded are %v, %v", got, err)
	}
}

// TestTransitions asks for any change in any state: what the table forbids
// changes nothing, the counters follow, and an ended job stays as it ended.
func TestTransitions(t *testing.T) {
	states := []lab.SandboxState{
		lab.SandboxRequested, lab.SandboxProvisioning, lab.SandboxBooting, lab.SandboxReady, lab.SandboxRunning,
		lab.SandboxSuspended, lab.SandboxStopped, lab.SandboxFailed, lab.SandboxDestroyed,
	}
	jobStates := []lab.JobState{lab.JobQueued, lab.JobRunning, lab.JobCompleted, lab.JobFailed, lab.JobTimeout, lab.JobCancelled}
	s := openIn(t, fastDir(t))
	rapid.Check(t, func(t *rapid.T) {
		sb := newSandbox(lab.NewID("x")[2:])
		job := lab.Job{ID: lab.NewID("job"), SandboxID: sb.ID, State: lab.JobQueued}
		if err := s.Submit(t.Context(), Submission{Sandbox: &sb, Job: &job}); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"sandbox": func(t *rapid.T) {
				to := rapid.SampledFrom(states).Draw(t, "to")
				err := s.Commit(t.Context(), Commit{Sandboxes: []SandboxChange{{ID: sb.ID, To: to}}})
				legal := to == sb.State || sb.State.To(to) == nil
				if (err == nil) != legal || !legal && fault.ClassOf(err) != fault.Precondition {
					t.Fatalf("%s to %s: %v", sb.State, to, err)
				}
				if legal {
					sb.State = to
				}
			},
			"job": func(t *rapid.T) {
				to := rapid.SampledFrom(jobStates).Draw(t, "to")
				err := s.Commit(t.Context(), Commit{Jobs: []JobChange{{ID: job.ID, To: to}}})
				legal := to == job.State || job.State.Ended() || job.State.To(to) == nil
				if (err == nil) != legal {
					t.Fatalf("%s to %s: %v", job.State, to, err)
				}
				if legal && !job.State.Ended() {
					job.State = to
				}
			},
			"": func(t *rapid.T) {
				gotBox, _ := s.Sandbox(t.Context(), sb.ID)
				gotJob, _ := s.Job(t.Context(), job.ID)
				if gotBox.State != sb.State || gotJob.State != job.State || gotJob.State.Ended() == gotJob.EndedAt.IsZero() {
					t.Fatalf("rows say %s and %s, want %s and %s", gotBox.State, gotJob.State, sb.State, job.State)
				}
			},
		})
	})
	checkCounts(t, s)
}

// checkCounts wants the counters to say what counting the rows says.
func checkCounts(t *testing.T, s *Store) {
	t.Helper()
	got, err := s.Counts(t.Context())
	check(t, err)
	want := Counts{Sandboxes: map[string]int{}, Jobs: map[string]int{}}
	boxes, err := s.Sandboxes(t.Context(), SandboxFilter{All: true})
	check(t, err)
	for _, sb := range boxes {
		want.Sandboxes[string(sb.State)]++
	}
	jobs, err := s.Jobs(t.Context(), JobFilter{})
	check(t, err)
	for _, j := range jobs {
		want.Jobs[string(j.State)]++
		files, err := s.Artifacts(t.Context(), j.ID)
		check(t, err)
		n, bytes, err := s.ArtifactUsage(t.Context(), j.ID)
		check(t, err)
		var sum int64
		for _, a := range files {
			sum += a.Size
		}
		if n != len(files) || bytes != sum {
			t.Errorf("usage of %s is %d files, %d bytes; rows say %d, %d", j.ID, n, bytes, len(files), sum)
		}
		want.ArtifactBytes += sum
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestFlaggedArtifactIsToldAsAnEvent(t *testing.T) {
	s := open(t)
	j := putJob(t, s, putSandbox(t, s, "a").ID)
	for _, flagged := range []string{"", "holds a secret", "holds a secret"} {
		check(t, s.PutArtifact(t.Context(), lab.Artifact{JobID: j.ID, Path: "a", Flagged: flagged}))
	}
	events, err := s.Events(t.Context(), EventFilter{JobID: j.ID, Types: []string{lab.EventArtifactFlagged}})
	if err != nil || len(events) != 1 || events[0].Message != "a holds a secret" || events[0].Fields["path"] != "a" {
		t.Errorf("events %+v, %v", events, err)
	}
}

func TestArtifactOfTheSamePathIsOneRow(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	j := putJob(t, s, putSandbox(t, s, "a").ID)
	for _, a := range []lab.Artifact{{Path: "a/b", Size: 10}, {Path: "c", Size: 5}, {Path: "a/b", Size: 3, SHA256: "ff"}, {Path: "a/b", Size: 3, SHA256: "ff"}} {
		a.JobID = j.ID
		check(t, s.PutArtifact(ctx, a))
	}
	got, err := s.Artifacts(ctx, j.ID)
	if err != nil || len(got) != 2 || got[0].Size != 3 || got[0].SHA256 != "ff" {
		t.Errorf("artifacts are %+v, %v", got, err)
	}
	events, err := s.Events(ctx, EventFilter{Types: []string{lab.EventArtifactStored}})
	if err != nil || len(events) != 3 { // the last file was as its row said
		t.Errorf("%d events, %v", len(events), err)
	}
	checkCounts(t, s)
	wantClass(t, s.PutArtifact(ctx, lab.Artifact{JobID: "job_none", Path: "x"}), fault.NotFound)
}
