package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Fields of /proc/PID/stat, see proc(5), and how long its ticks are.
const (
	statUser   = 14
	statSystem = 15
	statStart  = 22
	tick       = 10 * time.Millisecond
)

// pidOf finds a running QEMU by its guest's MAC address.
func pidOf(mac string) (int, error) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if text, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(text), "qemu-system-") && strings.Contains(string(text), "mac="+mac) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("no QEMU has the MAC address %s", mac)
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
