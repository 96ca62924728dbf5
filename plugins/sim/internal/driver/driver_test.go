package driver_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/internal/driver"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
)

const mac = "02:00:00:00:00:12"

var ref = hypervisor.Ref{VMID: 1012, Owner: "agentlab:h/sbx_a"}

func create() hypervisor.CreateRequest {
	return hypervisor.CreateRequest{
		Ref: ref, Name: "a", Template: "9000", Cores: 1, MemoryBytes: 1 << 30, NIC: hypervisor.NIC{MAC: mac},
	}
}

func open(t *testing.T) (*world.World, *driver.Hypervisor, *driver.Network) {
	t.Helper()
	w, err := world.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return w, driver.NewHypervisor(w, nil), driver.NewNetwork(w)
}

func TestLockedAndUnreadableVMs(t *testing.T) {
	w, h, _ := open(t)
	ctx := t.Context()
	for _, tt := range []struct {
		vm   world.VM
		want fault.Class
	}{
		{world.VM{VMID: ref.VMID, Owner: ref.Owner, Lock: "backup", Power: hypervisor.PowerOn}, fault.Locked},
		{world.VM{VMID: ref.VMID, Power: hypervisor.PowerOn}, fault.Precondition},
	} {
		if err := w.Plant(ctx, tt.vm); err != nil {
			t.Fatal(err)
		}
		before, err := w.Seq(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.DestroyVM(ctx, ref); !errors.Is(err, tt.want) {
			t.Errorf("destroy: %v, want %s", err, tt.want)
		}
		if _, err := h.SetPower(ctx, ref, hypervisor.PowerOff, 0); !errors.Is(err, tt.want) {
			t.Errorf("set power: %v, want %s", err, tt.want)
		}
		if after, err := w.Seq(ctx); err != nil || after != before {
			t.Errorf("%d effects by refused calls (%v)", after-before, err)
		}
	}
}

// A create that fails leaves nothing; one whose process died leaves half a VM
// that cannot be turned on and that the same owner finishes.
func TestHalfMade(t *testing.T) {
	w, h, _ := open(t)
	ctx := t.Context()
	if err := w.SetFaults(ctx, world.Fault{At: world.Before, Op: "vm.finish", Do: world.Fail, Class: "exhausted"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.CreateVM(ctx, create(), nil); !errors.Is(err, fault.Exhausted) {
		t.Errorf("create: %v, want exhausted", err)
	}
	if list, err := w.VMs(ctx); err != nil || len(list) != 0 {
		t.Errorf("a failed create left %+v (%v)", list, err)
	}
	if err := w.Plant(ctx, world.VM{VMID: ref.VMID, Owner: ref.Owner, Half: true, Lock: "clone", Power: hypervisor.PowerOff}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SetPower(ctx, ref, hypervisor.PowerOn, 0); !errors.Is(err, fault.Precondition) {
		t.Errorf("power on of half a vm: %v", err)
	}
	if vm, err := h.CreateVM(ctx, create(), nil); err != nil || vm.Lock != "" || vm.Cores != 1 {
		t.Errorf("create over half a vm: %+v, %v", vm, err)
	}
}

func TestDeafGuestGetsItsGrace(t *testing.T) {
	w, h, _ := open(t)
	if err := w.Plant(t.Context(), world.VM{VMID: ref.VMID, Owner: ref.Owner, Power: hypervisor.PowerOn, Deaf: true}); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.SetPower(short, ref, hypervisor.PowerShutdown, time.Hour); fault.ClassOf(err) != fault.Timeout {
		t.Errorf("shutdown within an hour's grace: %v", err)
	}
	start := time.Now()
	vm, err := h.SetPower(t.Context(), ref, hypervisor.PowerShutdown, 40*time.Millisecond)
	if err != nil || vm.Power != hypervisor.PowerOff || time.Since(start) < 40*time.Millisecond {
		t.Errorf("shutdown: %+v, %v after %s", vm, err, time.Since(start))
	}
}

// The order of the contract is noticed: policy first, then power; power off,
// then the end of the policy.
func TestBrokenOrderIsNoted(t *testing.T) {
	w, h, n := open(t)
	ctx := t.Context()
	if _, err := h.CreateVM(ctx, create(), nil); err != nil {
		t.Fatal(err)
	}
	power := func(p hypervisor.Power) {
		t.Helper()
		if _, err := h.SetPower(ctx, ref, p, 0); err != nil {
			t.Fatal(err)
		}
	}
	broken := func() string {
		t.Helper()
		log, err := w.Effects(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return log[len(log)-1].Broken
	}
	power(hypervisor.PowerOn)
	if !strings.Contains(broken(), "no policy is in force") {
		t.Errorf("power without a policy: %q", broken())
	}
	power(hypervisor.PowerOff)
	host := network.Host{Bridge: "vmbr1", Subnet: "127.77.0.0/16", Address: "127.77.0.1"}
	req := network.AttachRequest{
		SandboxID: "sbx_a", Generation: 1, Bridge: "vmbr1", Interface: "tap1012i0", MAC: mac, Address: "127.77.0.12", Mode: network.ModeNAT,
	}
	if _, err := n.Attach(ctx, req); !errors.Is(err, fault.Precondition) {
		t.Errorf("attach without a bridge: %v", err)
	}
	if _, err := n.ApplyHost(ctx, host); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Attach(ctx, req); err != nil {
		t.Fatal(err)
	}
	req.SandboxID = "sbx_b"
	if _, err := n.Attach(ctx, req); !errors.Is(err, fault.Exists) {
		t.Errorf("attach of another one's interface: %v", err)
	}
	power(hypervisor.PowerOn)
	if broken() != "" {
		t.Errorf("power with a policy: %q", broken())
	}
	if err := n.Detach(ctx, "sbx_a"); err != nil {
		t.Fatal(err)
	}
	if broken() != "" {
		t.Errorf("detach of a running vm, which shuts it in: %q", broken())
	}
}

func TestMachinesStartFromMemoryOnce(t *testing.T) {
	_, h, _ := open(t)
	ctx := t.Context()
	warm := hypervisor.WarmRequest{Template: "9000", Cores: 1, MemoryBytes: 1 << 30}
	for range 2 {
		if got, err := h.WarmTemplate(ctx, warm, nil); err != nil || len(got.Memory) != 1 {
			t.Fatalf("warm: %+v, %v", got, err)
		}
	}
	start := func(power hypervisor.Power) hypervisor.Start {
		t.Helper()
		vm, err := h.SetPower(ctx, ref, power, 0)
		if err != nil {
			t.Fatal(err)
		}
		return vm.Start
	}
	if _, err := h.CreateVM(ctx, create(), nil); err != nil {
		t.Fatal(err)
	}
	if got := start(hypervisor.PowerOn); got != (hypervisor.Start{Way: hypervisor.WayMemory}) {
		t.Errorf("first start %+v", got)
	}
	if got := start(hypervisor.PowerOff); got != (hypervisor.Start{}) {
		t.Errorf("off %+v", got)
	}
	if got := start(hypervisor.PowerOn); got.Way != hypervisor.WayBoot || got.Reason == "" {
		t.Errorf("second start %+v", got)
	}
	if _, err := h.WarmTemplate(ctx, hypervisor.WarmRequest{Template: "none", Cores: 1, MemoryBytes: 1}, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("unknown template: %v", err)
	}
}
