package settle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// quietShare of the processors' time at most is used in a guest at rest.
	quietShare = 0.05
	quietLook  = 500 * time.Millisecond
	quietLooks = 12 // one after the other; udev's idle programs end after some seconds
	// quietWait is for one that does not come to rest; it is as good as it gets.
	quietWait = 30 * time.Second
)

// Run returns when the guest has booted and is at rest. It leaves no host key:
// the one that sshd began with is for nobody. rehearse is done before the rest.
func Run(ctx context.Context, l layout.Layout, log hclog.Logger, rehearse func() error) error {
	if err := readsHostKey(l); err != nil {
		return err
	}
	if err := booted(ctx, log); err != nil {
		return err
	}
	for _, path := range []string{l.HostKey(), l.HostKey() + ".pub"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove host key: %w", err)
		}
	}
	stopNetworkd(ctx, log)
	if err := preload(); err != nil {
		return err
	}
	if err := rehearse(); err != nil {
		return err
	}
	debug.FreeOSMemory()
	if err := l.Flush(); err != nil {
		return err
	}
	return quiet(ctx, l, log)
}

// booted waits for systemd to have no more to start.
func booted(ctx context.Context, log hclog.Logger) error {
	out, err := exec.CommandContext(ctx, "systemctl", "is-system-running", "--wait").Output()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch state := strings.TrimSpace(string(out)); state {
	case "running":
		return nil
	case "degraded":
		log.Warn("a unit failed; the template is made nevertheless")
		return nil
	default:
		return fault.New(fault.Precondition, "systemd says %q: %v", state, err)
	}
}

// stopNetworkd has a copy's address set by agent-runner alone: networkd would
// only watch, and the work of watching is a good part of that of setting. The
// next boot starts it again.
func stopNetworkd(ctx context.Context, log hclog.Logger) {
	if out, err := exec.CommandContext(ctx, "systemctl", "stop", "systemd-networkd.socket", "systemd-networkd.service").CombinedOutput(); err != nil {
		log.Warn("networkd runs on", "err", err, "output", string(out))
	}
}

// preload has all of this program in the page cache, where copies share it,
// before one of them needs it in a hurry.
func preload() error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("read own program: %w", err)
	}
	_, err = io.Copy(io.Discard, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read own program: %w", err)
	}
	return nil
}

// quiet waits until little goes on.
func quiet(ctx context.Context, l layout.Layout, log hclog.Logger) error {
	deadline := time.Now().Add(quietWait)
	for looks := 0; looks < quietLooks; {
		before := cpuTimes(l)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietLook):
		}
		if share(before, cpuTimes(l)) <= quietShare {
			looks++
			continue
		}
		looks = 0
		if time.Now().After(deadline) {
			log.Warn("the guest does not come to rest")
			return nil
		}
	}
	return nil
}

// times are of all processors since boot, in ticks.
type times struct{ idle, total uint64 }

func cpuTimes(l layout.Layout) (t times) {
	b, _ := os.ReadFile(l.At("/proc/stat"))
	first, _, _ := strings.Cut(string(b), "\n")
	for i, field := range strings.Fields(first) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil || i > 8 { // the name; guests' time, which is counted twice
			continue
		}
		t.total += n
		if i == 4 || i == 5 { // idle, or waiting for a disk
			t.idle += n
		}
	}
	return t
}

// share is what was used between two looks; all of it where that is not known.
func share(a, b times) float64 {
	if b.total <= a.total {
		return 1
	}
	return 1 - float64(b.idle-a.idle)/float64(b.total-a.total)
}
