package bench_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
)

// Fields of /proc/PID/stat, see proc(5), and how long its ticks are.
const (
	statUser   = 14
	statSystem = 15
	statStart  = 22
	tick       = 10 * time.Millisecond
)

// pidOf finds the QEMU of a sandbox by the plugin's record of it.
func (l *labDaemon) pidOf(s api.Sandbox) (int, error) {
	vms, err := l.folderOfVMs()
	if err != nil {
		return 0, err
	}
	raw, err := os.ReadFile(filepath.Join(vms, strconv.FormatUint(uint64(s.VMID), 10), "vm.json"))
	if err != nil {
		return 0, err
	}
	var record struct{ Run struct{ PID int } }
	if err := json.Unmarshal(raw, &record); err != nil || record.Run.PID == 0 {
		return 0, fmt.Errorf("%s has no QEMU: %w", s.Name, err)
	}
	return record.Run.PID, nil
}

// argvOf gives the arguments of a process.
func argvOf(b *testing.B, pid int) []string {
	b.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		b.Fatal(err)
	}
	return strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
}

func statTicks(pid int, fields ...int) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	all := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var sum int64
	for _, field := range fields {
		n, err := strconv.ParseInt(all[field-3], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// cpuOf is the processor time that a process has used.
func cpuOf(pid int) (time.Duration, error) { return statTicks(pid, statUser, statSystem) }

// startOf is when a process began, in steps of ten milliseconds.
func startOf(b *testing.B, pid int) time.Time {
	b.Helper()
	began, err := statTicks(pid, statStart)
	if err != nil {
		b.Fatal(err)
	}
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	seconds, err := strconv.ParseFloat(strings.Fields(string(up))[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return now.Add(began - time.Duration(seconds*float64(time.Second)))
}
