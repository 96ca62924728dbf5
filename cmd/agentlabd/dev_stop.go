package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
)

// stopDev ends the dev daemon, also one that was killed, and says what ended with
// it and what stays.
func stopDev(ctx context.Context, o devOptions) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Denied, "the daemon runs as root").WithHint("run it with sudo, or use make demo-stop, which does")
	}
	if err := o.absolute(); err != nil {
		return err
	}
	if !marked(o.dir) {
		return fault.New(fault.NotFound, "there is no dev daemon in %s", o.dir).WithHint("name the directory that it was started with: --dev-dir")
	}
	o.runDir = o.lastRunDir()
	if err := o.checkRunDir(); err != nil {
		return err
	}
	in, err := o.contents(ctx)
	if o.unlessUsed {
		if err == nil {
			err = in.refuseUsed(o.dir)
		}
		if err != nil {
			return err
		}
	}
	in.down = errors.Join(in.down, err)
	if err := o.endAll(ctx); err != nil {
		return err
	}
	fmt.Print(in.ended())
	return nil
}

// endAll ends everything that lives in the daemon's namespace and removes its
// directories. What is in the namespace is ours: only --dev makes processes there.
// VMs of another hypervisor than qemu are destroyed by the daemon first, since
// nobody here knows what they are.
func (o devOptions) endAll(ctx context.Context) error {
	var left error
	if hypervisor := o.foreignHypervisor(); hypervisor != "" {
		left = o.destroySandboxes(ctx, hypervisor)
	}
	pinned, err := isNamespace(o.pin())
	if err != nil {
		return err
	}
	if pinned {
		if err := endProcesses(ctx, o.pin()); err != nil {
			return err
		}
		if err := unix.Unmount(o.pin(), 0); err != nil {
			return fault.New(fault.Internal, "unpin the namespace: %w", err)
		}
	}
	if pid := lockHolder(filepath.Join(o.dir, "data")); pid != "" {
		return fault.New(fault.Conflict, "process %s, which is not in the namespace %s, uses %s; nothing was removed", pid, o.pin(), o.dir).
			WithHint("end it, then try again")
	}
	for _, dir := range []string{o.runDir, o.dir} {
		if !marked(dir) {
			continue
		}
		if err := safeDir(dir); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return fault.New(fault.Internal, "remove %s: %w", dir, err)
		}
	}
	if left != nil {
		return fmt.Errorf("stopped, but: %w", left)
	}
	return nil
}

// lastRunDir is where the daemon of the directory was told to put its socket when
// it started last, whatever --dev-run-dir and the configuration say now. Only the
// configuration knows it of a daemon of a version that did not note it.
func (o devOptions) lastRunDir() string {
	if dir := partner(o.dir); dir != "" {
		return dir
	}
	cfg, _ := config.Inspect(filepath.Join(o.dir, devConfig))
	if cfg != nil && marked(cfg.RunDir) {
		return cfg.RunDir
	}
	return o.runDir
}

// endProcesses asks, then forces: the daemon first, since it ends its plugins
// itself, then whatever is left.
func endProcesses(ctx context.Context, pin string) error {
	var ns unix.Stat_t
	if err := unix.Stat(pin, &ns); err != nil {
		return fault.New(fault.Internal, "look at the namespace: %w", err)
	}
	stages := []struct {
		signal unix.Signal
		only   string
		wait   time.Duration
	}{
		{unix.SIGTERM, "agentlabd", 20 * time.Second},
		{unix.SIGTERM, "", 5 * time.Second},
		{unix.SIGKILL, "", 5 * time.Second},
	}
	for _, s := range stages {
		deadline := time.Now().Add(s.wait)
		for _, p := range processesIn(ns) {
			if s.only == "" || p.name == s.only {
				_ = unix.Kill(p.pid, s.signal)
			}
		}
		for left(ns, s.only) > 0 && time.Now().Before(deadline) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	if n := left(ns, ""); n > 0 {
		return fault.New(fault.Internal, "%d processes of the daemon would not end", n)
	}
	return nil
}

type process struct {
	pid  int
	name string
}

// processesIn lists the AgentLab and QEMU processes whose network namespace is
// the given one, without a shell that somebody took in there.
func processesIn(ns unix.Stat_t) []process {
	var out []process
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil
	}
	for _, link := range links {
		var st unix.Stat_t
		if unix.Stat(link, &st) != nil || st.Ino != ns.Ino || st.Dev != ns.Dev {
			continue
		}
		proc := filepath.Dir(filepath.Dir(link))
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || pid == os.Getpid() {
			continue
		}
		exe, _ := os.Readlink(filepath.Join(proc, "exe"))
		name := strings.TrimSuffix(filepath.Base(exe), " (deleted)")
		if strings.HasPrefix(name, "agentlab") || strings.HasPrefix(name, "qemu-system-") {
			out = append(out, process{pid, name})
		}
	}
	return out
}

func left(ns unix.Stat_t, only string) int {
	n := 0
	for _, p := range processesIn(ns) {
		if only == "" || p.name == only {
			n++
		}
	}
	return n
}
