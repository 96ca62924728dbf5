package scheduler

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// TestUnfitHost: what the hypervisor plugin misses is told to whoever asks, and
// nothing is written. What was asked for before is failed with it at once.
func TestUnfitHost(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		b.stop()
		b.world.failing("CheckHost", fault.New(fault.Unavailable, "the plugin starts")) // nobody knows yet
		first := b.submitJob("destroy")
		b.world.finds(plugin.Finding{ID: "qemu", Level: plugin.LevelMissing, Message: "QEMU is not installed", Fix: "install it"})
		b.start(-1)
		b.settle()
		if got := b.job(first.ID); got.State != lab.JobFailed || got.Reason != "reserve: this host cannot run sandboxes: QEMU is not installed (install it)" {
			t.Errorf("the job is %s (%s)", got.State, got.Reason)
		}
		rows := len(b.operations(state.OperationFilter{}))
		request := SandboxRequest{Profile: "p", Spec: spec("destroy")}
		_, _, err := b.CreateSandbox(context.Background(), request)
		if !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "QEMU is not installed") || fault.HintOf(err) != "install it" {
			t.Errorf("create: %v, hint %q", err, fault.HintOf(err))
		}
		_, _, _, err = b.RunJob(context.Background(), JobRequest{Profile: "p", Spec: spec("destroy")})
		if !errors.Is(err, fault.Precondition) {
			t.Errorf("run a job: %v", err)
		}
		if n := len(b.operations(state.OperationFilter{})); n != rows {
			t.Errorf("%d operations after refused requests, %d before", n, rows)
		}
		b.world.finds()
		if _, _, err := b.CreateSandbox(context.Background(), request); err != nil {
			t.Errorf("create once it is mended: %v", err)
		}
		b.settle()
	})
}
