package scheduler

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
)

// attached is the sandbox's policy as the world has it.
func (b *bench) attached(id string) (network.AttachRequest, bool) {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	req, ok := b.world.nets[id]
	return req, ok
}

func TestLostPoliciesAreRestored(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		b.start(-1)
		box := b.submitSandbox("box")
		b.settle()
		job := b.submitJob("destroy")
		time.Sleep(time.Minute)
		b.world.mu.Lock()
		b.world.flushed = true
		delete(b.world.nets, box.ID)
		open := b.world.nets[job.SandboxID]
		open.Mode = "open"
		b.world.nets[job.SandboxID] = open
		b.world.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for _, id := range []string{box.ID, job.SandboxID} {
			if req, ok := b.attached(id); !ok || req.Mode != network.ModeNAT || req.Address != b.sandbox(id).Address.String() {
				t.Errorf("sandbox %s is attached as %+v", id, req)
			}
		}
		if hosts, policies := len(b.events(lab.EventNetworkApplied)), len(b.events(lab.EventPolicyRestored)); hosts != 1 || policies != 2 {
			t.Errorf("%d events tell of the host and %d of policies, want 1 and 2", hosts, policies)
		}
	})
}

func TestDestroyedSandboxIsNotAttachedAgain(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		sb := b.submitSandbox("box")
		b.settle()
		b.world.failing("DestroyVM", fault.New(fault.Locked, "busy"), fault.New(fault.Locked, "busy"))
		if _, err := b.DestroySandbox(context.Background(), sb.ID); err != nil {
			t.Fatal(err)
		}
		if err := b.keepAttached(context.Background(), sb.ID, nil); err != nil {
			t.Fatal(err)
		}
		if n := len(b.events(lab.EventPolicyRestored)); n != 0 {
			t.Errorf("policy of a sandbox that goes was restored %d times", n)
		}
		b.settle()
		if err := b.keepAttached(context.Background(), sb.ID, nil); err != nil {
			t.Fatal(err)
		}
		b.checkWorld(t)
	})
}

func TestWithoutANetworkJobsFailAndOthersEndInTime(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		b.start(-1)
		running := b.submitJob("destroy")
		time.Sleep(time.Minute)
		b.stop()
		down := fault.New(fault.Unavailable, "plugin network netfilter is not available")
		for range 1000 {
			b.world.failing("ApplyHost", down)
		}
		b.start(-1)
		late := b.submitJob("destroy")
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if got := b.job(running.ID); got.State != lab.JobTimeout {
			t.Errorf("job that ran is %s (%s)", got.State, got.Reason)
		}
		if got := b.job(late.ID); got.State != lab.JobFailed || !strings.Contains(got.Reason, "plugin network netfilter is not available") {
			t.Errorf("job that came is %s (%s)", got.State, got.Reason)
		}
	})
}

// hungHypervisor makes its interfaces itself and, while hangs is set, answers
// nothing before its caller gives up.
type hungHypervisor struct {
	hypervisor.Driver
	hangs *atomic.Bool
}

func (h hungHypervisor) CheckHost(ctx context.Context) (hypervisor.HostReport, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return hypervisor.HostReport{}, ctx.Err()
	}
	report, err := h.Driver.CheckHost(ctx)
	report.CreatesInterface = true
	return report, err
}

func (h hungHypervisor) GetVM(ctx context.Context, ref hypervisor.Ref) (hypervisor.VM, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return hypervisor.VM{}, ctx.Err()
	}
	return h.Driver.GetVM(ctx, ref)
}

func (h hungHypervisor) ListVMs(ctx context.Context, prefix string, all bool) ([]hypervisor.VM, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Driver.ListVMs(ctx, prefix, all)
}

// TestHungHypervisorDoesNotKeepPoliciesAway flushes all rules while the
// hypervisor plugin hangs, before and after a restart of the daemon.
func TestHungHypervisorDoesNotKeepPoliciesAway(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		var hangs atomic.Bool
		b.adapt = func(c *Config) { c.Hypervisor = hungHypervisor{c.Hypervisor, &hangs} }
		b.start(-1)
		box := b.submitSandbox("box")
		b.settle()
		hangs.Store(true)
		time.Sleep(10 * time.Minute)
		for life := range 2 {
			b.world.mu.Lock()
			b.world.flushed = true
			delete(b.world.nets, box.ID)
			b.world.mu.Unlock()
			time.Sleep(10*time.Second + time.Millisecond)
			synctest.Wait()
			if req, ok := b.attached(box.ID); !ok || req.CreateInterface {
				t.Errorf("life %d: ten seconds after a flush the sandbox is attached: %v, as %+v", life, ok, req)
			}
			b.stop()
			b.start(-1)
			time.Sleep(time.Minute)
		}
	})
}
