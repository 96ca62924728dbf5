package confine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// Limits of a job's control group.
const (
	leastTasks    = 512
	mostTasks     = 4096     // between them one for each MiB of the guest's memory
	reservedBytes = 96 << 20 // memory that a job cannot have: runner, sshd, journal
	cpuWeight     = 50       // half of everything else's
)

// group is a control group (version 2) for a job. It stands beside systemd's
// slices, so that neither a restart of the runner's unit nor the rule against
// processes in inner groups concerns it.
type group struct{ dir string }

// openGroup makes the group; nil when this system has no control groups that
// we may make.
func openGroup(l layout.Layout) *group {
	top := l.At("/sys/fs/cgroup")
	if _, err := os.Stat(filepath.Join(top, "cgroup.controllers")); err != nil {
		return nil
	}
	g := &group{filepath.Join(top, "agentlab-job")}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil
	}
	for _, controller := range []string{"+pids", "+memory", "+cpu"} {
		_ = set(top, "cgroup.subtree_control", controller) // absent controllers set no limit
	}
	total := memoryBytes(l)
	_ = set(g.dir, "pids.max", strconv.FormatInt(tasks(total), 10))
	_ = set(g.dir, "cpu.weight", strconv.Itoa(cpuWeight))
	if total > 2*reservedBytes {
		_ = set(g.dir, "memory.max", strconv.FormatInt(total-reservedBytes, 10))
	}
	return g
}

// tasks is how many a guest with that much memory can run and still be ended in
// time: a bomb of thousands takes a small one minutes to clear away.
func tasks(memory int64) int64 { return min(max(memory>>20, leastTasks), mostTasks) }

// kill ends everything in the group and waits until it is gone.
func (g *group) kill(ctx context.Context) error {
	if err := set(g.dir, "cgroup.kill", "1"); err != nil {
		return fmt.Errorf("end control group: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		events, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
		if err != nil {
			return fmt.Errorf("watch control group: %w", err)
		}
		if strings.Contains(string(events), "populated 0") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for control group to be empty: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func set(dir, name, value string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644)
}

func memoryBytes(l layout.Layout) int64 {
	b, err := os.ReadFile(l.At("/proc/meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if field := strings.Fields(line); len(field) >= 2 && field[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(field[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
