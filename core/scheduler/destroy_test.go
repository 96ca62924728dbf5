package scheduler

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func repeat(err error, n int) []error { return slices.Repeat([]error{err}, n) }

// TestVMThatCannotBeDestroyedIsShutIn: whatever else is broken, what somebody
// asked to destroy does not stay on the network.
func TestVMThatCannotBeDestroyedIsShutIn(t *testing.T) {
	tests := map[string]struct {
		fails map[string][]error
		state lab.OperationState // of the destruction, in the end
	}{
		"for good":             {map[string][]error{"DestroyVM": repeat(fault.New(fault.Precondition, "owner of vm is not known"), 9)}, lab.OpFailed},
		"plugin down":          {map[string][]error{"GetVM": repeat(fault.New(fault.Unavailable, "plugin is down"), 900)}, lab.OpRunning},
		"network down as well": {map[string][]error{"DestroyVM": repeat(fault.New(fault.Precondition, "owner of vm is not known"), 9), "Detach": repeat(fault.New(fault.Unavailable, "plugin is down"), 3)}, lab.OpFailed},
		"only network down":    {map[string][]error{"Detach": repeat(fault.New(fault.Unavailable, "plugin is down"), 4)}, lab.OpDone},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "hang", func(b *bench) {
				b.start(-1)
				sb := b.submitSandbox("box")
				b.settle()
				for call, errs := range tt.fails {
					b.world.failing(call, errs...)
				}
				op, err := b.DestroySandbox(context.Background(), sb.ID)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if req, attached := b.attached(sb.ID); attached {
					t.Errorf("a minute later it is attached as %s%s", req.Interface, b.history())
				}
				if got := b.operations(state.OperationFilter{Subject: sb.ID, Limit: 1}); got[0].ID != op.ID || got[0].State != tt.state {
					t.Errorf("operation is %s (%s), want %s", got[0].State, got[0].Error, tt.state)
				}
				if n := b.world.count("destroy"); (n == 1) != (tt.state == lab.OpDone) {
					t.Errorf("effects are %v", b.world.effects)
				}
			})
		})
	}
}

// TestNetworkThatIsDownKeepsNoVMAlive: the VM goes first, its policy when the
// plugin is back.
func TestNetworkThatIsDownKeepsNoVMAlive(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		sb := b.submitSandbox("box")
		b.settle()
		b.world.failing("Detach", repeat(fault.New(fault.Unavailable, "plugin is down"), 20)...)
		if _, err := b.DestroySandbox(context.Background(), sb.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if mine := b.world.mine(lab.OwnerPrefix("host")); len(mine) != 0 {
			t.Errorf("VMs %v are left while the network plugin is down", mine)
		}
		b.settle()
		b.checkWorld(t)
	})
}

// leftovers is a hypervisor some of whose VMs lost all but their program, which
// only a destruction finds.
type leftovers struct {
	hypervisor.Driver
	programs map[hypervisor.Ref]bool // by VMID and owner
}

func (l leftovers) DestroyVM(ctx context.Context, ref hypervisor.Ref) error {
	delete(l.programs, hypervisor.Ref{VMID: ref.VMID, Owner: ref.Owner})
	return l.Driver.DestroyVM(ctx, ref)
}

func TestWhatIsLeftOfAVMThatIsGoneIsEnded(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		programs := map[hypervisor.Ref]bool{}
		b.adapt = func(c *Config) { c.Hypervisor = leftovers{c.Hypervisor, programs} }
		b.start(-1)
		job := b.submitJob("destroy")
		time.Sleep(time.Minute)
		sb := b.sandbox(job.SandboxID)
		b.world.mu.Lock()
		programs[hypervisor.Ref{VMID: sb.VMID, Owner: sb.Owner}] = true // before anybody can miss the VM
		delete(b.world.vms, sb.VMID)
		b.world.mu.Unlock()
		b.settle()
		if got := b.job(job.ID); !strings.Contains(got.Reason, "the VM is gone") {
			t.Errorf("job is %s (%s)", got.State, got.Reason)
		}
		if sb := b.sandbox(sb.ID); sb.State != lab.SandboxDestroyed || len(programs) != 0 {
			t.Errorf("sandbox is %s, programs left are %v", sb.State, programs)
		}
	})
}
