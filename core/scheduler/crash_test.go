package scheduler

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var transient = []error{
	fault.New(fault.Unavailable, "plugin is down"), fault.New(fault.Timeout, "no answer"), fault.New(fault.Locked, "busy"),
	fault.New(fault.Internal, "defect"),
}

// plantForeign makes VMs in our range that belong to others, with and without a mark.
func (b *bench) plantForeign(vmids ...uint32) {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	for i, id := range vmids {
		owner := ""
		if i%2 == 0 {
			owner = "agentlab:other/sbx_x"
		}
		b.world.vms[id] = &machine{owner: owner, power: hypervisor.PowerOn}
	}
}

// checkWorld wants what the rows say: one VM and one attachment for each live
// sandbox that is up, none for others, and the planted ones untouched.
func (b *bench) checkWorld(t testing.TB, planted ...uint32) {
	t.Helper()
	live := map[string]bool{}
	all, err := b.store.Sandboxes(context.Background(), state.SandboxFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, sb := range all {
		if sb.State == lab.SandboxReady || sb.State == lab.SandboxStopped || sb.State == lab.SandboxRunning {
			live[sb.Owner] = true
			if m, ok := b.world.machine(sb.VMID); !ok || m.owner != sb.Owner {
				t.Errorf("%s sandbox %s has no VM %d", sb.State, sb.Name, sb.VMID)
			}
		}
		if _, attached := b.world.nets[sb.ID]; attached != live[sb.Owner] {
			t.Errorf("%s sandbox %s: attached is %v", sb.State, sb.Name, attached)
		}
	}
	mine := b.world.mine(lab.OwnerPrefix("host"))
	if len(mine) != len(live) || len(b.world.nets) != len(live) {
		t.Errorf("VMs %v and %d attachments for %d live sandboxes", mine, len(b.world.nets), len(live))
	}
	for _, id := range planted {
		if m, ok := b.world.machine(id); !ok || m.power != hypervisor.PowerOn {
			t.Errorf("foreign VM %d was touched", id)
		}
	}
	if n := b.world.count("ASKED TO TOUCH"); n != 0 {
		t.Errorf("%d calls were aimed at foreign VMs: %v", n, b.world.effects)
	}
}

// TestNoCrashLosesOrLeaks ends the daemon after each single effect of a job's
// whole life, before and after it, and wants the next life to finish the work.
func TestNoCrashLosesOrLeaks(t *testing.T) {
	dir := fastDir(t)
	effects := 1
	for point := -1; point < effects; point++ {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, filepath.Join(dir, fmt.Sprintf("%d.db", point+1)), "")
			defer b.close()
			b.plantForeign(1000, 1001)
			b.start(point)
			job := b.submitJob("destroy")
			kept := b.submitSandbox("kept")
			if point >= 0 {
				b.lives.Wait() // dies by itself
				b.stop()
				b.start(-1)
			}
			b.settle()
			if got := b.job(job.ID); got.State != lab.JobCompleted {
				t.Errorf("job is %s (%s)", got.State, got.Reason)
			}
			if sb := b.sandbox(kept.ID); sb.State != lab.SandboxReady {
				t.Errorf("sandbox is %s (%s)", sb.State, sb.Reason)
			}
			b.checkWorld(t, 1000, 1001)
			if n := b.world.count("create"); n != 2 {
				t.Errorf("%d VMs were made for 2 sandboxes: %v", n, b.world.effects)
			}
			if point < 0 {
				if len(b.world.effects) < 10 {
					t.Fatalf("the world saw only %v", b.world.effects)
				}
				b.crash.mu.Lock()
				effects = min(b.crash.seen, 140) // the sweeps go on for ever
				b.crash.mu.Unlock()
			}
			if t.Failed() {
				t.Logf("crash at %d%s", point, b.history())
			}
		})
		if t.Failed() {
			return
		}
	}
	if effects < 60 {
		t.Errorf("only %d points were tried", effects)
	}
}

// TestAnySequenceOfCrashesHeals mixes jobs that end in every way, cancels,
// destroys, failing plugins and several crashes.
func TestAnySequenceOfCrashesHeals(t *testing.T) {
	dir := fastDir(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		task := rapid.SampledFrom([]string{"", "", "exit3", "hang", "mute", "off", "silent", "stubborn hang"}).Draw(rt, "task")
		end := rapid.SampledFrom([]string{"destroy", "stop", "keep"}).Draw(rt, "on_job_end")
		deaths := rapid.SliceOfN(rapid.IntRange(0, 60), 0, 4).Draw(rt, "deaths")
		action := rapid.SampledFrom([]string{"none", "cancel", "destroy"}).Draw(rt, "action")
		at := time.Duration(rapid.IntRange(0, 60).Draw(rt, "at")) * time.Second
		faults := rapid.SliceOfN(rapid.SampledFrom([]string{"Attach", "CreateVM", "SetPower", "DestroyVM", "Detach", "GetVM", "ListVMs"}), 0, 3).Draw(rt, "faults")
		class := rapid.SampledFrom(transient).Draw(rt, "class")
		var failures []string
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, filepath.Join(dir, fmt.Sprintf("%d.db", run)), task)
			defer b.close()
			b.plantForeign(1000, 1002, 1003)
			for _, call := range faults {
				b.world.failing(call, class)
			}
			failures = b.suffer(ordeal{end, action, at, deaths, len(faults) == 0 && task != "mute"})
		})
		if len(failures) > 0 {
			rt.Fatalf("%v", failures)
		}
	})
}

// ordeal is what happens to a job and to a sandbox beside it.
type ordeal struct {
	onEnd, action string
	at            time.Duration // of the action
	deaths        []int         // effects after which the daemon ends, one per life
	calm          bool          // nothing but deaths disturbs the sandbox
}

// suffer lets it happen and gives what is wrong in the end.
func (b *bench) suffer(o ordeal) []string {
	rec := &recorder{TB: b.t}
	b.start(-1)
	job := b.submitJob(o.onEnd)
	kept := b.submitSandbox("kept")
	b.stop()
	acted := make(chan struct{})
	go func() {
		defer close(acted)
		time.Sleep(o.at)
		switch o.action {
		case "cancel":
			_ = b.store.RequestCancel(context.Background(), job.ID)
		case "destroy":
			_, _ = b.store.SubmitDestroy(context.Background(), newOperation(lab.OpDestroySandbox, job.SandboxID, ""), "")
		}
	}()
	for _, effect := range o.deaths {
		b.start(effect)
		b.lives.Wait()
		b.stop()
	}
	b.start(-1)
	<-acted
	b.settle()
	time.Sleep(3 * time.Minute) // what looks right may be undone by a sweep
	b.settle()
	if b.failed() { // a destroy that failed rests for a while
		time.Sleep(12 * time.Minute)
		b.settle()
	}
	if got := b.job(job.ID); !got.State.Ended() {
		rec.Errorf("job is %s", got.State)
	}
	b.checkWorld(rec, 1000, 1002, 1003)
	// A guest may knock while it is being destroyed.
	if o.action == "none" && b.denied.Load() > 0 {
		rec.Errorf("%d guests were refused", b.denied.Load())
	}
	if sb := b.sandbox(kept.ID); o.calm && sb.State != lab.SandboxReady {
		rec.Errorf("the sandbox that nobody disturbed is %s (%s)", sb.State, sb.Reason)
	}
	if len(rec.failures) > 0 {
		rec.failures = append(rec.failures, b.history())
	}
	return slices.Clip(rec.failures)
}

// failed reports whether a sandbox waits for another try to remove it.
func (b *bench) failed() bool {
	b.t.Helper()
	failed, err := b.store.Sandboxes(context.Background(), state.SandboxFilter{States: []lab.SandboxState{lab.SandboxFailed}})
	if err != nil {
		b.t.Fatal(err)
	}
	return len(failed) > 0
}

// recorder keeps failures for rapid, which must be told outside the bubble.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, a ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, a...))
}
