package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// daemonEnv makes the test binary the daemon: it starts the plugin twice and
// takes one sandbox through its life. Its value is "BINARY:WORLD".
const (
	daemonEnv = "SIM_PLAY_DAEMON"
	effects   = 7 // of that life
)

func TestMain(m *testing.M) {
	if defect, ok := strings.CutPrefix(filepath.Base(os.Args[0]), plugin.BinaryPrefix); ok {
		plugin.Serve(spoilt(defect))
	}
	if os.Getenv(daemonEnv) == "" {
		flag.Parse()
		// The parallel ones mostly wait for what hangs, so that processors are no measure.
		if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
		code := m.Run()
		if path, err := built(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		os.Exit(code)
	}
	if err := daemon(os.Getenv(daemonEnv), os.Getenv(daemonEnv+"_WORLD")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func daemon(binary, dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	h, err := start(ctx, binary, dir, plugin.Hypervisor)
	if err != nil {
		return err
	}
	n, err := start(ctx, binary, dir, plugin.Network)
	if err != nil {
		return err
	}
	if err := life(ctx, hypervisor.NewClient(h.Conn()), network.NewClient(n.Conn())); err != nil {
		return err
	}
	return errors.Join(h.Stop(ctx), n.Stop(ctx))
}

func start(ctx context.Context, binary, dir string, kind plugin.Kind) (*launch.Process, error) {
	p, err := launch.Start(ctx, launch.Spec{Path: binary, Kind: string(kind), Name: "sim", RunDir: os.TempDir()})
	if err != nil {
		return nil, err
	}
	cfg, err := json.Marshal(config{World: dir, Heartbeat: "100ms"})
	if err != nil {
		return nil, err
	}
	_, diags, err := plugin.NewClient(p.Conn()).Configure(ctx, plugin.HostContext{Kind: kind, Instance: "sim"}, cfg)
	if err != nil || len(diags) > 0 {
		return nil, fmt.Errorf("configure: %w %v", err, diags)
	}
	return p, nil
}

func life(ctx context.Context, h hypervisor.Driver, n network.Driver) error {
	ref := hypervisor.Ref{VMID: 1012, Owner: "agentlab:h/sbx_a"}
	nic := hypervisor.NIC{MAC: "02:00:00:00:00:12", AddressCIDR: "127.77.0.12/16"}
	if _, err := n.ApplyHost(ctx, network.Host{Bridge: "vmbr1", Subnet: "127.77.0.0/16", Address: "127.77.0.1"}); err != nil {
		return err
	}
	if _, err := n.Attach(ctx, network.AttachRequest{
		SandboxID: "sbx_a", Generation: 1, Bridge: "vmbr1", Interface: "tap1012i0", MAC: nic.MAC, Address: "127.77.0.12", Mode: network.ModeNAT,
	}); err != nil {
		return err
	}
	if _, err := h.CreateVM(ctx, hypervisor.CreateRequest{
		Ref: ref, Name: "a", Template: "9000", Cores: 1, MemoryBytes: 1 << 30, NIC: nic,
	}, nil); err != nil {
		return err
	}
	if _, err := h.SetPower(ctx, ref, hypervisor.PowerOn, 0); err != nil {
		return err
	}
	if err := h.DestroyVM(ctx, ref); err != nil {
		return err
	}
	return n.Detach(ctx, "sbx_a")
}

func runDaemon(t *testing.T, binary, dir string) (killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), daemonEnv+"="+binary, daemonEnv+"_WORLD="+dir, "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, _ := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() && status.Signal() == syscall.SIGKILL {
			return true
		}
	}
	if err != nil {
		t.Fatalf("daemon: %v: %s", err, out)
	}
	return false
}

// Killed before or after any of its effects, a second daemon brings the same
// life to its end: each thing happens once, and nothing stays.
func TestKillDaemonAtEveryEffect(t *testing.T) {
	binary := build(t)
	for n := uint64(1); n <= effects; n++ {
		for _, at := range []world.Point{world.Before, world.After} {
			t.Run(fmt.Sprintf("%s %d", at, n), func(t *testing.T) {
				w := openWorld(t)
				if err := w.SetFaults(t.Context(), world.Fault{At: at, Effect: n, Do: world.KillDaemon}); err != nil {
					t.Fatal(err)
				}
				if !runDaemon(t, binary, w.Dir()) {
					t.Fatal("the daemon was not killed")
				}
				want := n
				if at == world.Before {
					want--
				}
				if got, err := w.Seq(t.Context()); err != nil || got != want {
					t.Errorf("%d effects at the kill, want %d (%v)", got, want, err)
				}
				awaitPluginsGone(t, binary)
				if runDaemon(t, binary, w.Dir()) {
					t.Fatal("the second daemon was killed too")
				}
				checkLife(t, w)
			})
		}
	}
}

// checkLife expects each effect of one life, some again where the kill made a
// part of it happen twice, and an empty world.
func checkLife(t *testing.T, w *world.World) {
	t.Helper()
	log, err := w.Effects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range log {
		count[e.Op]++
		if e.Broken != "" {
			t.Errorf("effect %d %s: %s", e.Seq, e.Op, e.Broken)
		}
	}
	if count["vm.create"] == 0 || count["vm.create"] != count["vm.destroy"]+count["vm.discard"] || count["network.attach"] != count["network.detach"] {
		t.Errorf("effects do not balance: %v", count)
	}
	if list, err := w.VMs(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("machines left: %+v, %v", list, err)
	}
}

func awaitPluginsGone(t *testing.T, binary string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		exes, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, exe := range exes {
			if target, err := os.Readlink(exe); err == nil && target == binary {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d plugins outlive their daemon", left)
		}
	}
}

// A plugin that kills itself leaves the call without an answer and the effect
// done; the next process of it answers as if nothing had been.
func TestKillPlugin(t *testing.T) {
	binary, w := build(t), openWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.SetFaults(ctx, world.Fault{At: world.After, Op: "vm.finish", Do: world.KillPlugin}); err != nil {
		t.Fatal(err)
	}
	req := hypervisor.CreateRequest{
		Ref: hypervisor.Ref{VMID: 1012, Owner: "agentlab:h/sbx_a"}, Name: "a", Template: "9000", Cores: 1, MemoryBytes: 1 << 30,
		NIC: hypervisor.NIC{MAC: "02:00:00:00:00:12"},
	}
	for round, want := range []fault.Class{fault.Unavailable, ""} {
		p, err := start(ctx, binary, w.Dir(), plugin.Hypervisor)
		if err != nil {
			t.Fatal(err)
		}
		vm, err := hypervisor.NewClient(p.Conn()).CreateVM(ctx, req, nil)
		if fault.ClassOf(err) != want {
			t.Errorf("round %d: %+v, %v, want class %q", round, vm, err, want)
		}
		if want != "" {
			<-p.Done()
			if p.Exit().Signal != "SIGKILL" {
				t.Errorf("the plugin %s", p.Exit())
			}
		}
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
		if n, err := w.Seq(ctx); err != nil || n != 2 {
			t.Errorf("round %d: %d effects, want 2 (%v)", round, n, err)
		}
	}
}
