package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// plan is what a plugin's stand-in does until it is killed.
type plan struct {
	Config Config
	Lab    uint32 // its number
	State  string
	Call   string // create, start, start from spare, destroy, warm, or one of operations
	Step   string // after which it dies
}

// playStandIn runs one call in a process of its own and kills it at the step,
// as SIGKILL would hit a plugin there.
func playStandIn(text string) {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	d, err := New(p.Config, p.State, hclog.NewNullLogger())
	if err != nil {
		panic(err)
	}
	d.openTap, d.replug, d.greet = openTapOf(p.Lab), replugOf(p.Lab), newFakeGuest().greet
	d.crash = func(step string) {
		if step == p.Step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch p.Call {
	case "create":
		_, err = d.CreateVM(ctx, testRequest(), nil)
	case "start":
		_, err = d.SetPower(ctx, testRef(), hypervisor.PowerOn, 0)
	case "destroy":
		err = d.DestroyVM(ctx, testRef())
	case "start from spare":
		_, err = d.WarmTemplate(ctx, testWarmRequest(), nil)
		for n := 0; n == 0 && err == nil && ctx.Err() == nil; n, _, err = d.spares.state() {
			time.Sleep(10 * time.Millisecond)
		}
		if err == nil {
			_, err = d.SetPower(ctx, testRef(), hypervisor.PowerOn, 0)
		}
	case "warm":
		_, err = d.WarmTemplate(ctx, testWarmRequest(), nil)
	default:
		err = operations[p.Call](ctx, d)
	}
	fmt.Println("the call ended before its step:", err)
}

// killedIn runs the call in a stand-in and reports whether it died at the step.
func (l *lab) killedIn(call, step string) {
	l.t.Helper()
	text, err := json.Marshal(plan{Config: l.config, Lab: l.number, State: l.state, Call: call, Step: step})
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), standIn+"="+string(text))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		l.t.Fatalf("stand-in was not killed at %q: %v: %s", step, err, out)
	}
}

func TestCreateConvergesAfterKill(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"claimed", "seeded", "cloned"} {
		t.Run(step, func(t *testing.T) {
			l := newLab(t, testhost.Idle)
			l.killedIn("create", step)
			d := l.driver()
			vm, err := d.GetVM(testContext(t), testRef())
			if err != nil || vm.Ref.Owner != testOwner || vm.Power != hypervisor.PowerOff {
				t.Fatalf("half-made vm reads as %+v, %v", vm, err)
			}
			if _, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerOn, 0); !errors.Is(err, fault.Precondition) {
				t.Errorf("start of a half-made vm: %v, want precondition", err)
			}
			l.create(d)
			if vm := l.power(d, hypervisor.PowerOn, 0); vm.Power != hypervisor.PowerOn {
				t.Errorf("power = %s", vm.Power)
			}
			l.destroyAndCheck(d)
		})
	}
}

func TestDestroyOfHalfMade(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.killedIn("create", "claimed")
	l.destroyAndCheck(l.driver())
}

func TestStartConvergesAfterKill(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"announced", "spawned", "answered", "recorded"} {
		t.Run(step, func(t *testing.T) {
			l := newLab(t, testhost.Idle)
			l.create(l.driver())
			l.killedIn("start", step)
			if step == "spawned" && len(l.pids()) != 1 {
				t.Fatalf("programs after the kill: %v, want the orphan", l.pids())
			}
			d := l.driver()
			if vm := l.power(d, hypervisor.PowerOn, 0); vm.Power != hypervisor.PowerOn {
				t.Errorf("power = %s", vm.Power)
			}
			if pids := l.pids(); len(pids) != 1 {
				t.Errorf("programs = %v, want one", pids)
			}
			l.destroyAndCheck(d)
		})
	}
}

// A start may also be followed by a destroy right away.
func TestDestroyFindsOrphan(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.create(l.driver())
	l.killedIn("start", "spawned")
	l.destroyAndCheck(l.driver())
}

func TestDestroyConvergesAfterKill(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	l.killedIn("destroy", "killed")
	l.waitPower(l.driver(), hypervisor.PowerOff)
	l.destroyAndCheck(l.driver())
}

// destroyAndCheck looks at processes and files, not at what the driver says.
func (l *lab) destroyAndCheck(d *Driver) {
	l.t.Helper()
	for range 2 { // gone is success
		if err := d.DestroyVM(testContext(l.t), testRef()); err != nil {
			l.t.Fatal(err)
		}
	}
	if pids := l.pids(); len(pids) > 0 {
		l.t.Errorf("programs left: %v", pids)
	}
	left, err := os.ReadDir(d.store.Root())
	if err != nil || len(left) > 0 {
		l.t.Errorf("folders left: %v, %v", left, err)
	}
	if _, err := d.GetVM(testContext(l.t), testRef()); !errors.Is(err, fault.NotFound) {
		l.t.Errorf("get after destroy: %v, want not found", err)
	}
}
