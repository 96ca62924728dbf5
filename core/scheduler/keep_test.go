package scheduler

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// uploads puts rows of uploads and records which files are removed.
func (b *bench) uploads(ids ...string) *[]string {
	b.t.Helper()
	for _, id := range ids {
		if err := b.store.PutRepo(context.Background(), state.Repo{ID: id, Size: 7}); err != nil {
			b.t.Fatal(err)
		}
	}
	var cleaned []string
	b.cfg.CleanRepo = func(_ context.Context, id string) error {
		cleaned = append(cleaned, id)
		return nil
	}
	return &cleaned
}

func (b *bench) borrow(sb lab.Sandbox, repoID string) lab.Job {
	b.t.Helper()
	sb = b.sandbox(sb.ID)
	_, _, job, err := b.RunJob(context.Background(), JobRequest{Sandbox: &sb, Task: "t", RepoID: repoID, TTL: time.Hour})
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

func TestRepositoryOfABorrowedSandboxGoesWithItsJob(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		cleaned := b.uploads("repo_1")
		sb := b.submitSandbox("box")
		b.settle()
		job := b.borrow(sb, "repo_1")
		time.Sleep(40 * time.Second) // the job takes 20 s; the loops run each minute
		synctest.Wait()
		if got := b.job(job.ID); got.State != lab.JobCompleted || !slices.Equal(*cleaned, []string{"repo_1"}) {
			t.Errorf("job is %s (%s), removed are %v", got.State, got.Reason, *cleaned)
		}
	})
}

func TestUploadsThatNobodyNeedsAreCollected(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		ctx := context.Background()
		b.start(-1)
		cleaned := b.uploads("repo_left", "repo_used")
		used, _, _, err := b.RunJob(ctx, JobRequest{Task: "t", RepoID: "repo_used", Spec: spec("destroy"), TTL: 2 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = b.RunJob(ctx, JobRequest{Task: "t", RepoID: "repo_used", Spec: spec("destroy"), TTL: 2 * time.Hour})
		if fault.ClassOf(err) != fault.Precondition {
			t.Errorf("a second job with the upload of %s: %v", used.JobID, err)
		}
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if len(*cleaned) != 0 {
			t.Errorf("%v removed before its time", *cleaned)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if !slices.Equal(*cleaned, []string{"repo_left"}) {
			t.Errorf("removed are %v", *cleaned)
		}
		_, _, _, err = b.RunJob(ctx, JobRequest{Task: "t", RepoID: "repo_left", Spec: spec("destroy")})
		if fault.ClassOf(err) != fault.Precondition {
			t.Errorf("a job with a collected upload: %v", err)
		}
	})
}
