package scheduler

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func (b *bench) events(typ string) []lab.Event {
	b.t.Helper()
	events, err := b.store.Events(context.Background(), state.EventFilter{Types: []string{typ}})
	if err != nil {
		b.t.Fatal(err)
	}
	return events
}

func TestTakenVMIDsAreBurnedAndLeftAlone(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.plantForeign(1000, 1001, 1003)
		b.start(-1)
		first, second := b.submitSandbox("one"), b.submitSandbox("two")
		b.settle()
		got := map[uint32]bool{b.sandbox(first.ID).VMID: true, b.sandbox(second.ID).VMID: true}
		if !got[1002] || !got[1004] {
			t.Errorf("VMIDs are %v, want 1002 and 1004%s", got, b.history())
		}
		if n := len(b.events(lab.EventVMIDBurned)); n != 3 {
			t.Errorf("%d VMIDs were burned, want 3", n)
		}
		if sb := b.sandbox(first.ID); b.world.nets[sb.ID].Interface != sb.Interface || b.world.nets[sb.ID].Address != sb.Address.String() {
			t.Errorf("attached is %+v, sandbox has %s %s", b.world.nets[sb.ID], sb.Interface, sb.Address)
		}
		b.checkWorld(t, 1000, 1001, 1003)
		third := b.submitSandbox("three")
		b.settle()
		fourth := b.submitSandbox("four")
		b.settle()
		if sb := b.sandbox(third.ID); sb.State != lab.SandboxReady || sb.VMID != 1005 {
			t.Errorf("third is %s with VMID %d", sb.State, sb.VMID)
		}
		if sb := b.sandbox(fourth.ID); sb.State != lab.SandboxFailed || !strings.Contains(sb.Reason, "no VMID from 1000 to 1005 is free") {
			t.Errorf("fourth is %s (%s)", sb.State, sb.Reason)
		}
	})
}

func TestFailureIsUndoneAndExplained(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.world.failing("SetPower", fault.New(fault.Exhausted, "not enough memory").WithHint("free 512 MiB"))
		b.world.failing("Detach", fault.New(fault.Unavailable, "plugin is down"))
		b.start(-1)
		job := b.submitJob("keep")
		b.settle()
		got := b.job(job.ID)
		if got.State != lab.JobFailed || got.Reason != "start-vm: not enough memory (free 512 MiB)" {
			t.Errorf("job is %s (%s)", got.State, got.Reason)
		}
		ops := b.operations(state.OperationFilter{JobID: job.ID})
		if len(ops) != 1 || ops[0].State != lab.OpFailed || ops[0].ErrorClass != "exhausted" || ops[0].Hint != "free 512 MiB" {
			t.Errorf("operations are %+v", ops)
		}
		b.checkWorld(t)
		if b.world.count("create") != 1 || b.world.count("detach") != 1 {
			t.Errorf("effects are %v", b.world.effects)
		}
	})
}

func TestPassingFailuresAreRetried(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		down := fault.New(fault.Unavailable, "plugin is down")
		b.world.failing("CheckHost", down, down, down) // the first meets the request, which does not mind
		b.world.failing("Attach", down, down, down)
		b.world.failing("CreateVM", fault.New(fault.Locked, "template is busy"), fault.New(fault.Timeout, "no answer"))
		b.start(-1)
		job := b.submitJob("destroy")
		b.settle()
		if got := b.job(job.ID); got.State != lab.JobCompleted {
			t.Errorf("job is %s (%s)", got.State, got.Reason)
		}
		if n := len(b.events(lab.EventStepFailed)); n != 7 {
			t.Errorf("%d failed attempts are recorded, want 7", n)
		}
	})
}

func TestCancel(t *testing.T) {
	tests := []struct {
		task  string
		after time.Duration
		want  string
		ends  time.Duration // at the latest
	}{
		{"", 0, "cancelled", 30 * time.Second},
		{"mute", 30 * time.Second, "cancelled", time.Minute},
		{"idle", 30 * time.Second, "cancelled before it began", time.Minute},
		{"hang", 30 * time.Second, "", time.Minute},
		{"stubborn hang", time.Minute, "did not stop within 30s", 2 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.task+" "+tt.after.String(), func(t *testing.T) {
			inBubble(t, tt.task, func(b *bench) {
				b.start(-1)
				job := b.submitJob("destroy")
				time.Sleep(tt.after)
				if err := b.CancelJob(context.Background(), job.ID); err != nil {
					t.Fatal(err)
				}
				b.settle()
				got := b.job(job.ID)
				if got.State != lab.JobCancelled || !strings.Contains(got.Reason, tt.want) || got.EndedAt.Sub(got.CreatedAt) > tt.ends {
					t.Errorf("job is %s (%s) after %s%s", got.State, got.Reason, got.EndedAt.Sub(got.CreatedAt), b.history())
				}
				if err := b.CancelJob(context.Background(), job.ID); fault.ClassOf(err) != fault.Precondition {
					t.Errorf("cancel of an ended job: %v", err)
				}
				b.checkWorld(t)
			})
		})
	}
}

func TestDestroyAtAnyTime(t *testing.T) {
	for _, after := range []time.Duration{0, 1, 3 * time.Second, 15 * time.Second, time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			inBubble(t, "hang", func(b *bench) {
				b.world.createFor = 5 * time.Second
				b.start(-1)
				job := b.submitJob("keep")
				time.Sleep(after)
				first, err := b.DestroySandbox(context.Background(), job.SandboxID)
				if err != nil {
					t.Fatal(err)
				}
				again, err := b.DestroySandbox(context.Background(), job.SandboxID)
				if err != nil || again.ID != first.ID {
					t.Errorf("second destroy is %s, %v; want the open %s", again.ID, err, first.ID)
				}
				b.settle()
				if got := b.job(job.ID); got.State != lab.JobCancelled {
					t.Errorf("job is %s (%s)", got.State, got.Reason)
				}
				if sb := b.sandbox(job.SandboxID); sb.State != lab.SandboxDestroyed {
					t.Errorf("sandbox is %s (%s)", sb.State, sb.Reason)
				}
				again, err = b.DestroySandbox(context.Background(), job.SandboxID)
				if err != nil || again.ID != first.ID || again.State != lab.OpDone {
					t.Errorf("destroy of a destroyed sandbox is %s %s, %v", again.ID, again.State, err)
				}
				b.checkWorld(t)
			})
		})
	}
}

// Creates and starts wait for their turn, for longer than one call may take.
func TestCreatesAndStartsAreQueued(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.world.last = 1099
		b.world.createFor, b.world.startFor = 10*time.Second, 30*time.Second
		b.start(-1)
		for i := range 30 {
			b.submitSandbox("box-" + strconv.Itoa(i))
		}
		time.Sleep(90 * time.Second) // all are made, and most of them wait to be started
		waiting := ""
		for _, e := range b.events(lab.EventStepProgressed) {
			if e.Message == "wait for other starts" {
				waiting = e.SandboxID
			}
		}
		if b.sandbox(waiting).State != lab.SandboxBooting {
			t.Fatalf("%q does not wait for its start", waiting)
		}
		if _, err := b.DestroySandbox(context.Background(), waiting); err != nil {
			t.Fatal(err)
		}
		b.settle()
		if failed := b.events(lab.EventStepFailed); len(failed) > 0 {
			t.Errorf("steps failed: %+v", failed)
		}
		if diff := cmp.Diff(map[string]int{"create": 4, "start": 3}, b.world.mostBusy); diff != "" {
			t.Errorf("at the same time (- want, + got):\n%s", diff)
		}
		ready, err := b.store.Sandboxes(context.Background(), state.SandboxFilter{States: []lab.SandboxState{lab.SandboxReady}})
		if err != nil || len(ready) != 29 {
			t.Errorf("%d of 29 are ready, %v%s", len(ready), err, b.history())
		}
		b.checkWorld(t)
	})
}

func TestLeaseEnds(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		_, leased, err := b.CreateSandbox(context.Background(), SandboxRequest{Name: "leased", Spec: spec("destroy"), TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		kept := b.submitSandbox("kept")
		time.Sleep(59 * time.Minute)
		if sb := b.sandbox(leased.ID); sb.State != lab.SandboxReady {
			t.Errorf("leased is %s before its time", sb.State)
		}
		time.Sleep(3 * time.Minute)
		b.settle()
		if sb := b.sandbox(leased.ID); sb.State != lab.SandboxDestroyed {
			t.Errorf("leased is %s", sb.State)
		}
		if sb := b.sandbox(kept.ID); sb.State != lab.SandboxReady {
			t.Errorf("kept is %s", sb.State)
		}
	})
}

func TestHostReboot(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		b.start(-1)
		kept, gone := b.submitSandbox("kept"), b.submitSandbox("gone")
		job := b.submitJob("destroy")
		time.Sleep(time.Minute)
		b.stop()
		for _, id := range b.world.mine("") {
			b.world.setPower(id, hypervisor.PowerOff)
		}
		b.world.mu.Lock()
		delete(b.world.vms, b.sandbox(gone.ID).VMID)
		b.world.mu.Unlock()
		b.start(-1)
		b.settle()
		if sb := b.sandbox(kept.ID); sb.State != lab.SandboxStopped || !strings.Contains(sb.Reason, "rebooted") {
			t.Errorf("kept is %s (%s)", sb.State, sb.Reason)
		}
		if sb := b.sandbox(gone.ID); sb.State != lab.SandboxFailed || sb.Reason != "the VM is gone" {
			t.Errorf("gone is %s (%s)", sb.State, sb.Reason)
		}
		if got := b.job(job.ID); got.State != lab.JobFailed || !strings.Contains(got.Reason, "the VM stopped") {
			t.Errorf("job is %s (%s)", got.State, got.Reason)
		}
	})
}

func TestSweepExplainsEveryVMWithOurMark(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		sb := b.submitSandbox("box")
		b.settle()
		if _, err := b.DestroySandbox(context.Background(), sb.ID); err != nil {
			t.Fatal(err)
		}
		b.settle()
		b.world.mu.Lock()
		b.world.vms[1000] = &machine{owner: sb.Owner, power: hypervisor.PowerOff}                    // a create that was cut off
		b.world.vms[1001] = &machine{owner: "agentlab:host/sbx_unknown", power: hypervisor.PowerOff} // no row
		b.world.vms[1002] = &machine{owner: "agentlab:host2/" + sb.ID, power: hypervisor.PowerOn}    // another host's
		b.world.mu.Unlock()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if mine := b.world.mine(""); len(mine) != 2 || mine[0] != 1001 || mine[1] != 1002 {
			t.Errorf("VMs left are %v, want 1001 and 1002", mine)
		}
		if n := len(b.events(lab.EventVMFound)); n != 2 {
			t.Errorf("%d events tell of found VMs, want one for each of 2", n)
		}
	})
}

func TestRefusedBeforeRowsAreWritten(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		b.submitSandbox("taken")
		change := func(f func(*SandboxRequest)) SandboxRequest {
			r := SandboxRequest{Name: "box", Spec: spec("destroy")}
			f(&r)
			return r
		}
		tests := map[fault.Class][]SandboxRequest{
			fault.Exists: {change(func(r *SandboxRequest) { r.Name = "taken" })},
			fault.Invalid: {
				change(func(r *SandboxRequest) { r.Name = "1042" }),
				change(func(r *SandboxRequest) { r.Spec.Template = "" }),
				change(func(r *SandboxRequest) { r.Spec.Cores = 0 }),
				change(func(r *SandboxRequest) { r.Spec.NetworkAllow = []string{"0.0.0.0/0"} }),
				change(func(r *SandboxRequest) { r.Spec.NetworkAllow = []string{"10.77.3.4:80"} }),
			},
		}
		for class, requests := range tests {
			for _, r := range requests {
				if _, _, err := b.CreateSandbox(context.Background(), r); fault.ClassOf(err) != class {
					t.Errorf("%+v: error %v, want class %s", r, err, class)
				}
			}
		}
		if n := len(b.operations(state.OperationFilter{})); n != 1 {
			t.Errorf("%d operations were written, want 1", n)
		}
	})
}

func TestUploadedRepositoryGoesWithTheSandbox(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		ctx := context.Background()
		cleaned := b.uploads("repo_1")
		b.start(-1)
		if _, _, _, err := b.RunJob(ctx, JobRequest{Task: "t", RepoID: "repo_1", Spec: spec("destroy")}); err != nil {
			t.Fatal(err)
		}
		b.settle()
		if _, err := b.store.Repo(ctx, "repo_1"); fault.ClassOf(err) != fault.NotFound || len(cleaned()) != 1 {
			t.Errorf("cleaned is %v, row: %v", cleaned(), err)
		}
	})
}

func TestProgressIsNotWrittenTooOften(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		sb := b.submitSandbox("box")
		b.settle()
		before := len(b.events(lab.EventStepProgressed))
		w := &work{Scheduler: b.Scheduler, op: lab.Operation{ID: "op_x", Subject: sb.ID, Step: "create-vm"}, sb: sb, log: b.log}
		tell := w.progress(context.Background())
		for range 100 { // 1 s
			tell(hypervisor.Progress{Phase: "clone disk", Fraction: 0.5})
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(b.events(lab.EventStepProgressed)) - before; n != 3 {
			t.Errorf("%d events within a second, want 3", n)
		}
	})
}

func TestGuestIsHeardAfterALongAbsence(t *testing.T) {
	inBubble(t, "silent", func(b *bench) {
		b.start(-1)
		heard, lost := b.submitJob("destroy"), b.submitJob("destroy")
		time.Sleep(30 * time.Second)
		b.stop()
		time.Sleep(2 * time.Hour) // far past every deadline
		b.start(-1)
		time.Sleep(30 * time.Second)
		if got := b.job(heard.ID); got.State != lab.JobRunning {
			t.Fatalf("job is %s (%s) right after the daemon came back", got.State, got.Reason)
		}
		if err := b.store.JobReported(context.Background(), heard.ID, lab.JobReport{Status: "completed", Uploaded: true}); err != nil {
			t.Fatal(err)
		}
		b.settle()
		if got := b.job(heard.ID); got.State != lab.JobCompleted {
			t.Errorf("job that was heard is %s (%s)", got.State, got.Reason)
		}
		if got := b.job(lost.ID); got.State != lab.JobTimeout {
			t.Errorf("job that was not is %s (%s)", got.State, got.Reason)
		}
	})
}
