package bench_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/bench/internal/record"
)

const (
	settleTime = 30 * time.Second // of guests that have just come up
	idleTime   = 10 * time.Second
)

// BenchmarkIdle weighs sandboxes that have nothing to do: what memory each QEMU has
// for itself, and what processor time it takes.
func BenchmarkIdle(b *testing.B) {
	l := newLabDaemon(b)
	l.warm(b)
	all := make([]started, count(b, "AGENTLAB_BENCH_IDLE", 40))
	for i := range all {
		all[i] = l.memoryStart(b, overChannel)
	}
	time.Sleep(settleTime)
	before := make([]time.Duration, len(all))
	for i, s := range all {
		before[i] = cpuNow(b, s.pid)
	}
	began := time.Now()
	time.Sleep(idleTime)
	var cpu, private, guest, code, rest []float64
	for i, s := range all {
		cpu = append(cpu, 100*float64(cpuNow(b, s.pid)-before[i])/float64(time.Since(began)))
	}
	for _, s := range all {
		if err := overChannel(b.Context(), l, s.Sandbox); err != nil {
			b.Fatalf("%s does not live: %v", s.Name, err)
		}
		m := weigh(b, s.pid)
		private, guest = append(private, m.private), append(guest, m.guest)
		code, rest = append(code, m.code), append(rest, m.private-m.guest-m.code)
	}
	hide(b)
	b.ReportMetric(float64(len(all)), "alive")
	b.ReportMetric(median(private), "private-MiB")
	b.ReportMetric(median(guest), "guest-MiB")
	b.ReportMetric(median(code), "translated-MiB")
	b.ReportMetric(median(cpu), "cpu-%")
	keep(b, "idle", record.Set{Series: map[string][]float64{
		"private": private, "guest": guest, "translated": code, "rest": rest, "cpu": cpu,
	}})
	l.destroy(b, all...)
}

func cpuNow(b *testing.B, pid int) time.Duration {
	b.Helper()
	d, err := cpuOf(pid)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// weight is memory that only one process has, in MiB.
type weight struct{ private, guest, code float64 }

// weigh reads /proc/PID/smaps, see proc_pid_smaps(5): Private_Clean and Private_Dirty
// of the whole process, of its guest's memory, and of what it may write and execute,
// which is QEMU's translation buffer alone.
func weigh(b *testing.B, pid int) weight {
	b.Helper()
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "smaps"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var w weight
	var mapping string
	in := bufio.NewScanner(f)
	for in.Scan() {
		name, rest, _ := strings.Cut(in.Text(), ":")
		if strings.Contains(name, "-") { // START-END PERMS OFFSET DEVICE INODE PATH
			mapping = in.Text()
			continue
		}
		var kib float64
		if name != "Private_Clean" && name != "Private_Dirty" {
			continue
		}
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			b.Fatalf("smaps of %d: %q", pid, in.Text())
		}
		w.private += kib / 1024
		switch {
		case strings.Contains(mapping, "agentlab-ram"):
			w.guest += kib / 1024
		case strings.Contains(mapping, " rwx"):
			w.code += kib / 1024
		}
	}
	if in.Err() != nil {
		b.Fatal(in.Err())
	}
	return w
}
