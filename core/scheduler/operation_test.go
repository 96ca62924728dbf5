package scheduler

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// slowPower takes its time for every change of power, but not longer than its
// caller has.
type slowPower struct {
	hypervisor.Driver
	takes time.Duration
}

func (d slowPower) SetPower(ctx context.Context, ref hypervisor.Ref, to hypervisor.Power, grace time.Duration) (hypervisor.VM, error) {
	if sleep(ctx, d.takes); ctx.Err() != nil {
		return hypervisor.VM{}, ctx.Err()
	}
	return d.Driver.SetPower(ctx, ref, to, grace)
}

// TestCancelCutsOffACall: who cancels or destroys does not wait for a plugin
// that takes minutes.
func TestCancelCutsOffACall(t *testing.T) {
	tests := map[string]struct {
		create, power time.Duration
		after         time.Duration
		stop          func(b *bench, job lab.Job) error
	}{
		"cancel while it is made": {9 * time.Minute, 0, 10 * time.Second, func(b *bench, job lab.Job) error {
			return b.CancelJob(context.Background(), job.ID)
		}},
		"destroy while it is made": {9 * time.Minute, 0, 10 * time.Second, func(b *bench, job lab.Job) error {
			_, err := b.DestroySandbox(context.Background(), job.SandboxID)
			return err
		}},
		"destroy while it is started": {0, 90 * time.Second, 10 * time.Second, func(b *bench, job lab.Job) error {
			_, err := b.DestroySandbox(context.Background(), job.SandboxID)
			return err
		}},
		"destroy while it is stopped": {0, 90 * time.Second, 2 * time.Minute, func(b *bench, job lab.Job) error {
			_, err := b.DestroySandbox(context.Background(), job.SandboxID)
			return err
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "", func(b *bench) {
				b.world.createFor = tt.create
				b.adapt = func(c *Config) { c.Hypervisor = slowPower{c.Hypervisor, tt.power} }
				b.start(-1)
				job := b.submitJob("stop")
				time.Sleep(tt.after)
				if err := tt.stop(b, job); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if open := b.operations(state.OperationFilter{Open: true}); len(open) != 0 {
					t.Errorf("three seconds later %s is at %s%s", open[0].Kind, open[0].Step, b.history())
				}
				if sb := b.sandbox(job.SandboxID); sb.State != lab.SandboxDestroyed {
					t.Errorf("sandbox is %s (%s)", sb.State, sb.Reason)
				}
				ops := b.operations(state.OperationFilter{JobID: job.ID})
				if last := ops[len(ops)-1]; last.State != lab.OpCancelled || last.Error != "cancelled" {
					t.Errorf("%s is %s (%s)", last.Kind, last.State, last.Error)
				}
				b.checkWorld(t)
			})
		})
	}
}
