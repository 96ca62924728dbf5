package spawn

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	systemdFolder = "/run/systemd/system"
	scopeTimeout  = 10 * time.Second
	scopePoll     = 20 * time.Millisecond
)

// ScopeHint says how to get what Scope needs.
const ScopeHint = "apt-get install dbus, and see systemctl status dbus: without it a guest would end with the daemon's unit"

// NeedsBus reports whether systemd runs here and its bus is missing.
func NeedsBus() bool {
	if _, err := os.Stat(systemdFolder); err != nil {
		return false
	}
	_, err := os.Stat("/run/dbus/system_bus_socket")
	return err != nil
}

// ScopeName is the systemd unit of a VM. The user is part of it because two
// instances on a host may have a VM of the same number, but never of the same
// user.
func ScopeName(vmid, uid uint32) string { return fmt.Sprintf("agentlab-vm-%d-%d.scope", vmid, uid) }

// Scope moves the program out of this one's control group into its own scope,
// so that stopping the daemon's unit does not end it. Where systemd does not
// run there is nothing to do.
func Scope(ctx context.Context, vmid, uid uint32, pid int) error {
	if _, err := os.Stat(systemdFolder); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, scopeTimeout)
	defer cancel()
	var taken error
	for {
		err := startScope(ctx, vmid, uid, pid)
		if err == nil {
			break
		}
		if ctx.Err() != nil && taken != nil {
			return taken
		}
		// The scope of the VM's last run may not have been collected yet.
		if !strings.Contains(err.Error(), "already") {
			return err
		}
		taken = err
		if sleep(ctx, scopePoll) != nil {
			return taken
		}
	}
	for !inScope(ScopeName(vmid, uid), pid) {
		if err := sleep(ctx, scopePoll); err != nil {
			return fault.New(fault.Unavailable, "pid %d did not reach %s: %w", pid, ScopeName(vmid, uid), err)
		}
	}
	return nil
}

func startScope(ctx context.Context, vmid, uid uint32, pid int) error {
	cmd := exec.CommandContext(ctx, "busctl", scopeArgs(vmid, uid, pid)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return &fault.Error{
			Class: fault.Unavailable, Message: "start " + ScopeName(vmid, uid) + ": " + err.Error(), Err: err,
			Command: "busctl", ExitCode: cmd.ProcessState.ExitCode(), Stderr: stderr.String(),
			Hint: ScopeHint,
		}
	}
	return nil
}

func scopeArgs(vmid, uid uint32, pid int) []string {
	return []string{
		"--system", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
		"org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))",
		ScopeName(vmid, uid), "fail", "4",
		"PIDs", "au", "1", strconv.Itoa(pid),
		"Description", "s", fmt.Sprintf("AgentLab VM %d", vmid),
		"CollectMode", "s", "inactive-or-failed",
		"TimeoutStopUSec", "t", "90000000",
		"0",
	}
}

func inScope(name string, pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(b), "/"+name)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
