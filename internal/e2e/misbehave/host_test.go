package misbehave_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"go.uber.org/goleak"

	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// TestHostHoldsNothing has one plugin after the other misbehave in a host of
// this process: when the host has ended, no goroutine, descriptor or folder of
// it is left.
func TestHostHoldsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, as the daemon does")
	}
	binary := testkit.Bin(t, "agentlab-plugin-sim")
	dir, err := os.MkdirTemp("/tmp", "almis") // short: sockets are below
	if err != nil {
		t.Fatal(err)
	}
	testkit.OnEnd(t, func() { _ = os.RemoveAll(dir) })
	w, err := world.Open(filepath.Join(dir, "world"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.Dir(), world.Bundles, "planted.yaml"), []byte(testkit.SimBundle), 0o600); err != nil {
		t.Fatal(err)
	}
	// What stays is what any host leaves: processes are watched by threads.
	if err := withHost(t, dir, binary, w, nil); err != nil {
		t.Fatal(err)
	}
	before, known := descriptors(t), goleak.IgnoreCurrent()
	if err := withHost(t, dir, binary, w, misbehaveInTurn); err != nil {
		t.Fatal(err)
	}
	if err := goleak.Find(known); err != nil {
		t.Error(err)
	}
	if after := descriptors(t); len(after) > len(before) {
		t.Errorf("descriptors before: %q\nand after: %q", before, after)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
		t.Errorf("left in the run directory: %v, %v", left, err)
	}
}

func descriptors(t *testing.T) (out []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			out = append(out, to)
		}
	}
	return out
}

// withHost runs a host over sim for as long as f takes.
func withHost(t *testing.T, dir, binary string, w *world.World, f func(context.Context, *pluginhost.Host, *world.World) error) error {
	t.Helper()
	body, diags := hclsyntax.ParseConfig([]byte(fmt.Sprintf("world = %q\n", w.Dir())), "config.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var blocks []pluginhost.Block
	for _, kind := range []string{"hypervisor", "secrets"} {
		blocks = append(blocks, pluginhost.Block{Kind: kind, Name: "sim", Path: binary, Body: body.Body})
	}
	run := filepath.Join(dir, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	h := pluginhost.New(pluginhost.Config{Blocks: blocks, RunDir: run, StateDir: filepath.Join(dir, "state"), HostUUID: "uuid", HostVersion: "test"},
		hclog.New(&hclog.LoggerOptions{Output: io.Discard}))
	ctx, cancel := context.WithTimeout(t.Context(), 4*soon)
	defer cancel()
	running, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.Run(running) }()
	err := h.Ready(ctx)
	if err == nil && f != nil {
		err = f(ctx, h, w)
	}
	end()
	return errors.Join(err, <-ended)
}

func misbehaveInTurn(ctx context.Context, h *pluginhost.Host, w *world.World) error {
	for _, f := range []world.Fault{
		{Do: world.KillPlugin},
		{Do: world.Panic},
		{Do: world.Exit},
		{Do: world.Babble},
		{Do: world.BadLog},
		{Do: world.LongLine, Bytes: 10 << 20},
		{Do: world.Flood, For: world.Duration(500 * time.Millisecond)},
		{Do: world.Deaf},
		{Do: world.Unplug},
	} {
		f.Op = describe
		if err := w.SetFaults(ctx, f); err != nil {
			return err
		}
		asked, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, _ = h.Secrets().Describe(asked, "planted") // the table looks at what it says
		cancel()
		if err := h.Restart(ctx, "secrets"); err != nil {
			return fmt.Errorf("after %s: %w", f.Do, err)
		}
		if _, err := h.Secrets().Describe(ctx, "planted"); err != nil {
			return fmt.Errorf("after %s: %w", f.Do, err)
		}
	}
	return trickle(ctx, h, w)
}

// trickle makes a call whose stream never ends: its deadline ends it.
func trickle(ctx context.Context, h *pluginhost.Host, w *world.World) error {
	if err := w.SetFaults(ctx, world.Fault{Op: "vm.create", Do: world.Trickle}); err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	heard := 0
	began := time.Now()
	_, err := h.Hypervisor().CreateVM(asked, hypervisor.CreateRequest{Ref: hypervisor.Ref{VMID: 1012, Owner: "agentlab:uuid/sbx_a"}},
		func(hypervisor.Progress) { heard++ })
	if !errors.Is(err, fault.Timeout) || !strings.Contains(err.Error(), "did not answer in time") || heard == 0 || time.Since(began) > promptly {
		return fmt.Errorf("after %s and %d words of an endless stream: %w", time.Since(began), heard, err)
	}
	_, err = h.Hypervisor().ListVMs(ctx, "", false)
	return err
}
