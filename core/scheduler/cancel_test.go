package scheduler

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

func (b *bench) firstOperation(sandboxID string, kind lab.OperationKind) lab.Operation {
	b.t.Helper()
	for _, op := range b.operations(state.OperationFilter{Subject: sandboxID}) {
		if op.Kind == kind {
			return op
		}
	}
	b.t.Fatalf("sandbox %s has no %s", sandboxID, kind)
	return lab.Operation{}
}

// A cancelled create-sandbox leaves nothing: no VM, no attachment, no name.
func TestCancelOfCreateSandbox(t *testing.T) {
	for _, after := range []time.Duration{0, 1, 3 * time.Second, 6 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			inBubble(t, "mute", func(b *bench) {
				b.world.createFor = 5 * time.Second
				b.start(-1)
				sb := b.submitSandbox("box")
				op := b.firstOperation(sb.ID, lab.OpCreateSandbox)
				time.Sleep(after)
				for range 2 { // asked again, answers the same
					got, err := b.CancelOperation(context.Background(), op.ID)
					if err != nil || got.ID != op.ID || !got.Cancel && got.State != lab.OpUndoing {
						t.Errorf("cancel: %+v, %v", got, err)
					}
				}
				b.settle()
				got := b.firstOperation(sb.ID, lab.OpCreateSandbox)
				if got.State != lab.OpCancelled || got.Error != "cancelled" || got.EndedAt.Sub(got.CreatedAt) > 30*time.Second {
					t.Errorf("operation is %s (%s) after %s%s", got.State, got.Error, got.EndedAt.Sub(got.CreatedAt), b.history())
				}
				if sb := b.sandbox(sb.ID); sb.State != lab.SandboxDestroyed {
					t.Errorf("sandbox is %s (%s)", sb.State, sb.Reason)
				}
				if n := len(b.events(lab.EventOperationCancel)); n != 1 {
					t.Errorf("%d events tell of the request, want 1", n)
				}
				if again, err := b.CancelOperation(context.Background(), op.ID); err != nil || again.State != lab.OpCancelled {
					t.Errorf("asked again after the end: %s, %v", again.State, err)
				}
				if n := len(b.events(lab.EventOperationCancel)); n != 1 {
					t.Errorf("%d events tell of the request after the end, want 1", n)
				}
				b.checkWorld(t)
				b.submitSandbox("box") // the name is free again
			})
		})
	}
}

// While a step waits to be tried again a cancel is not kept waiting.
func TestCancelDuringRetries(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		down := fault.New(fault.Unavailable, "plugin is down")
		b.world.failing("Attach", down, down, down, down, down, down, down)
		b.start(-1)
		sb := b.submitSandbox("box")
		time.Sleep(20 * time.Second)
		op := b.firstOperation(sb.ID, lab.OpCreateSandbox)
		if op.State != lab.OpRunning || op.Attempt < 4 {
			t.Fatalf("operation is %s at attempt %d", op.State, op.Attempt)
		}
		asked := time.Now()
		if _, err := b.CancelOperation(context.Background(), op.ID); err != nil {
			t.Fatal(err)
		}
		b.settle()
		got := b.firstOperation(sb.ID, lab.OpCreateSandbox)
		if got.State != lab.OpCancelled || got.EndedAt.Sub(asked) > 2*time.Second {
			t.Errorf("operation is %s %s after the request", got.State, got.EndedAt.Sub(asked))
		}
		b.checkWorld(t)
	})
}

func TestCancelOfRunJobIsThatOfItsJob(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		b.start(-1)
		job := b.submitJob("stop")
		time.Sleep(30 * time.Second)
		op := b.firstOperation(job.SandboxID, lab.OpRunJob)
		for range 2 {
			if _, err := b.CancelOperation(context.Background(), op.ID); err != nil {
				t.Fatal(err)
			}
		}
		b.settle()
		if got := b.job(job.ID); got.State != lab.JobCancelled || got.Reported == nil {
			t.Errorf("job is %s (%s), reported %v", got.State, got.Reason, got.Reported)
		}
		if got := b.firstOperation(job.SandboxID, lab.OpRunJob); got.State != lab.OpDone {
			t.Errorf("operation is %s (%s)", got.State, got.Error)
		}
		if sb := b.sandbox(job.SandboxID); sb.State != lab.SandboxStopped {
			t.Errorf("sandbox is %s (%s); on_job_end is stop", sb.State, sb.Reason)
		}
		b.checkWorld(t)
	})
}

func TestCancelIsRefused(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		sb := b.submitSandbox("box")
		b.settle()
		b.stop() // the destruction stays where it is
		op, err := b.DestroySandbox(context.Background(), sb.ID)
		if err != nil {
			t.Fatal(err)
		}
		created := b.firstOperation(sb.ID, lab.OpCreateSandbox)
		for id, want := range map[string]fault.Class{op.ID: fault.Precondition, created.ID: fault.Precondition, "op_none": fault.NotFound} {
			if _, err := b.CancelOperation(context.Background(), id); fault.ClassOf(err) != want {
				t.Errorf("cancel of %s: %v, want %s", id, err, want)
			}
		}
		if op, err = b.store.Operation(context.Background(), op.ID); err != nil || op.Cancel {
			t.Errorf("the destruction is marked as cancelled, %v", err)
		}
	})
}

// TestNoCrashOutlivesACancel asks for the end of a sandbox that is being made
// and ends the daemon after each single effect of what follows.
func TestNoCrashOutlivesACancel(t *testing.T) {
	dir := fastDir(t)
	effects := 1
	for point := -1; point < effects; point++ {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, filepath.Join(dir, fmt.Sprintf("%d.db", point+1)), "mute")
			defer b.close()
			b.plantForeign(1000)
			b.start(-1)
			sb := b.submitSandbox("box")
			time.Sleep(20 * time.Second) // it waits for the guest
			op := b.firstOperation(sb.ID, lab.OpCreateSandbox)
			b.stop()
			if _, err := b.CancelOperation(context.Background(), op.ID); err != nil {
				t.Fatal(err)
			}
			b.start(point)
			if point >= 0 {
				b.lives.Wait()
				b.stop()
				b.start(-1)
			}
			b.settle()
			got, sb := b.firstOperation(sb.ID, lab.OpCreateSandbox), b.sandbox(sb.ID)
			if got.State != lab.OpCancelled || sb.State != lab.SandboxDestroyed {
				t.Errorf("crash at %d: operation is %s, sandbox %s (%s)%s", point, got.State, sb.State, sb.Reason, b.history())
			}
			b.checkWorld(t, 1000)
			if point < 0 {
				b.crash.mu.Lock()
				effects = min(b.crash.seen, 60)
				b.crash.mu.Unlock()
			}
		})
		if t.Failed() {
			return
		}
	}
	if effects < 20 {
		t.Errorf("only %d points were tried", effects)
	}
}
