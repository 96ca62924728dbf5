package scheduler

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// uploads puts rows of uploads and gives a function that tells which files are
// removed. It comes before start.
func (b *bench) uploads(ids ...string) func() []string {
	b.t.Helper()
	for _, id := range ids {
		if err := b.store.PutRepo(context.Background(), state.Repo{ID: id, Size: 7}); err != nil {
			b.t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var cleaned []string
	b.cleanRepo = func(_ context.Context, id string) error {
		mu.Lock()
		defer mu.Unlock()
		cleaned = append(cleaned, id)
		return nil
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(cleaned)
	}
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
		cleaned := b.uploads("repo_1")
		b.start(-1)
		sb := b.submitSandbox("box")
		b.settle()
		job := b.borrow(sb, "repo_1")
		time.Sleep(40 * time.Second) // the job takes 20 s; the loops run each minute
		synctest.Wait()
		if got := b.job(job.ID); got.State != lab.JobCompleted || !slices.Equal(cleaned(), []string{"repo_1"}) {
			t.Errorf("job is %s (%s), removed are %v", got.State, got.Reason, cleaned())
		}
	})
}

func TestUploadsThatNobodyNeedsAreCollected(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		ctx := context.Background()
		cleaned := b.uploads("repo_left", "repo_used")
		b.start(-1)
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
		if len(cleaned()) != 0 {
			t.Errorf("%v removed before its time", cleaned())
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if !slices.Equal(cleaned(), []string{"repo_left"}) {
			t.Errorf("removed are %v", cleaned())
		}
		_, _, _, err = b.RunJob(ctx, JobRequest{Task: "t", RepoID: "repo_left", Spec: spec("destroy")})
		if fault.ClassOf(err) != fault.Precondition {
			t.Errorf("a job with a collected upload: %v", err)
		}
	})
}

func TestLeaseDoesNotEndARunningJob(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		b.start(-1)
		_, leased, err := b.CreateSandbox(context.Background(), SandboxRequest{Name: "leased", Spec: spec("destroy"), TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Minute)
		job := b.borrow(leased, "")
		time.Sleep(55 * time.Minute)
		synctest.Wait()
		if got := b.job(job.ID); got.State != lab.JobRunning {
			t.Fatalf("job is %s (%s) before its own deadline", got.State, got.Reason)
		}
		time.Sleep(10 * time.Minute)
		b.settle()
		if got := b.job(job.ID); got.State != lab.JobTimeout {
			t.Errorf("job is %s (%s)", got.State, got.Reason)
		}
		if sb := b.sandbox(leased.ID); sb.State != lab.SandboxDestroyed || !strings.HasSuffix(sb.Reason, "; its lease ended") {
			t.Errorf("sandbox is %s (%s) after lease and job", sb.State, sb.Reason)
		}
		told := slices.ContainsFunc(b.events(lab.EventSandboxChanged), func(e lab.Event) bool {
			return e.Fields["to"] == string(lab.SandboxDestroyed) && strings.HasSuffix(e.Message, "; its lease ended")
		})
		if !told {
			t.Error("no event says that the lease ended")
		}
	})
}

func TestFailedSandboxOfAPersonStaysAfterABorrowedJob(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		ctx := context.Background()
		b.start(-1)
		_, sb, err := b.CreateSandbox(ctx, SandboxRequest{Name: "box", Spec: spec("destroy"), TTL: 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		b.settle()
		b.borrow(sb, "")
		b.settle()
		b.world.mu.Lock()
		delete(b.world.vms, b.sandbox(sb.ID).VMID)
		b.world.mu.Unlock()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if got := b.sandbox(sb.ID); got.State != lab.SandboxFailed {
			t.Errorf("sandbox is %s (%s), want FAILED until its lease ends", got.State, got.Reason)
		}
	})
}

func TestOneVMThatCannotBeSweptHidesNoOther(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		var gone []lab.Sandbox
		for _, name := range []string{"one", "two"} {
			sb := b.submitSandbox(name)
			b.settle()
			if _, err := b.DestroySandbox(context.Background(), sb.ID); err != nil {
				t.Fatal(err)
			}
			gone = append(gone, sb)
		}
		b.settle()
		stuck := fault.New(fault.Precondition, "its disk is in use")
		b.world.failing("DestroyVM", stuck)
		b.world.mu.Lock()
		for i, sb := range gone {
			b.world.vms[1000+uint32(i)] = &machine{owner: sb.Owner, power: hypervisor.PowerOff}
		}
		b.world.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if mine := b.world.mine("agentlab:host/"); len(mine) != 1 {
			t.Errorf("VMs left are %v, want only the one that could not be destroyed", mine)
		}
	})
}

// TestFailedFinishKeepsWhatTheProfileKeeps: a defect at the very end of a job is
// no reason to destroy what shall stay, nor to keep what shall go.
func TestFailedFinishKeepsWhatTheProfileKeeps(t *testing.T) {
	tests := []struct {
		onEnd, call string
		want        lab.SandboxState
	}{
		{"stop", "SetPower", lab.SandboxFailed},
		{"keep", "GetVM", lab.SandboxFailed},
		{"destroy", "DestroyVM", lab.SandboxDestroyed},
	}
	for _, tt := range tests {
		t.Run(tt.onEnd, func(t *testing.T) {
			inBubble(t, "", func(b *bench) {
				b.start(-1)
				job := b.submitJob(tt.onEnd)
				time.Sleep(15 * time.Second) // the job takes 20 s
				b.world.failing(tt.call, repeat(fault.New(fault.Internal, "defect"), 12)...)
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				sb := b.sandbox(job.SandboxID)
				if sb.State != tt.want {
					t.Errorf("sandbox is %s (%s), want %s", sb.State, sb.Reason, tt.want)
				}
				if _, ok := b.world.machine(sb.VMID); ok != (tt.want == lab.SandboxFailed) {
					t.Errorf("VM is there: %v; effects are %v", ok, b.world.effects)
				}
				if tt.want != lab.SandboxFailed {
					return
				}
				b.world.failing("DestroyVM", fault.New(fault.Precondition, "its disk is in use"))
				if _, err := b.DestroySandbox(context.Background(), sb.ID); err != nil {
					t.Fatal(err)
				}
				time.Sleep(15 * time.Minute)
				synctest.Wait()
				if sb := b.sandbox(sb.ID); sb.State != lab.SandboxDestroyed {
					t.Errorf("sandbox that somebody asked to destroy is %s (%s)", sb.State, sb.Reason)
				}
			})
		})
	}
}

// TestWhatStaysAfterAJobHasALease: a sandbox made for a job goes in the end,
// however it came to stay, unless somebody asked for it.
func TestWhatStaysAfterAJobHasALease(t *testing.T) {
	tests := []struct {
		name, task, onEnd string
		ttl, lease        time.Duration
	}{
		{"stop", "", "stop", 10 * time.Minute, 30 * time.Minute},
		{"keep", "", "keep", 10 * time.Minute, 30 * time.Minute},
		{"long job", "", "keep", time.Hour, time.Hour},
		{"did not end by itself", "hang", "keep", 10 * time.Minute, 30 * time.Minute},
		{"off", "off", "keep", 10 * time.Minute, 30 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, tt.task, func(b *bench) {
				ctx := context.Background()
				b.timing.AfterJob = 30 * time.Minute
				b.start(-1)
				var sandboxes []lab.Sandbox
				for _, keep := range []bool{false, true} {
					_, sb, _, err := b.RunJob(ctx, JobRequest{Task: tt.task, Spec: spec(tt.onEnd), Keep: keep, TTL: tt.ttl})
					if err != nil {
						t.Fatal(err)
					}
					sandboxes = append(sandboxes, sb)
				}
				b.settle()
				ended := b.job(sandboxes[0].JobID).EndedAt
				time.Sleep(time.Until(ended.Add(tt.lease - time.Minute)))
				synctest.Wait()
				left := b.sandbox(sandboxes[0].ID)
				if left.State != lab.SandboxStopped && left.State != lab.SandboxReady {
					t.Errorf("sandbox is %s (%s) before its time", left.State, left.Reason)
				}
				if over := left.ExpiresAt.Sub(ended.Add(tt.lease)); over < 0 || over > 2*time.Minute {
					t.Errorf("lease ends at %s, the job ended at %s", left.ExpiresAt, ended)
				}
				time.Sleep(5 * time.Minute)
				b.settle()
				if sb := b.sandbox(sandboxes[0].ID); sb.State != lab.SandboxDestroyed {
					t.Errorf("sandbox is %s (%s) after its time", sb.State, sb.Reason)
				}
				if sb := b.sandbox(sandboxes[1].ID); !sb.State.Live() || !sb.ExpiresAt.IsZero() {
					t.Errorf("sandbox that shall be kept is %s, lease until %s", sb.State, sb.ExpiresAt)
				}
				b.checkWorld(t)
			})
		})
	}
}

func TestBorrowedSandboxWithoutALeaseGetsNone(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		endless := spec("destroy")
		endless.TTL = 0
		_, sb, err := b.CreateSandbox(context.Background(), SandboxRequest{Name: "box", Spec: endless})
		if err != nil {
			t.Fatal(err)
		}
		b.settle()
		b.borrow(sb, "")
		b.settle()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if sb := b.sandbox(sb.ID); sb.State != lab.SandboxReady || !sb.ExpiresAt.IsZero() {
			t.Errorf("sandbox is %s, lease until %s", sb.State, sb.ExpiresAt)
		}
	})
}
