package bench_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentlab/agentlab/bench/internal/record"
	"github.com/agentlab/agentlab/internal/testkit"
)

// BenchmarkSpare is BenchmarkStart where a spare guest waits for each sandbox. How long
// the next one takes to be made is in it too, since sandboxes that are asked for faster than
// that find none, and what one takes while it waits.
func BenchmarkSpare(b *testing.B) {
	l := newLabDaemon(b)
	l.SetQEMU(b, "spares = 1")
	l.warm(b)
	var ready, execs, sshs, refills samples
	var private []float64
	for range count(b, "AGENTLAB_BENCH_STARTS", 20) {
		l.spareWaits(b)
		one := l.memoryStart(b, overChannel)
		ready, execs = append(ready, one.ready), append(execs, one.output)
		began := time.Now()
		next := l.spareWaits(b)
		refills = append(refills, time.Since(began))
		private = append(private, weigh(b, next).private)
		l.destroy(b, one)
		one = l.memoryStart(b, overSSH) // the next one waits by now
		sshs = append(sshs, one.output)
		l.destroy(b, one)
	}
	hide(b)
	ready.report(b, "ready")
	execs.report(b, "exec")
	sshs.report(b, "ssh")
	refills.report(b, "refill")
	b.ReportMetric(median(private), "private-MiB")
	keep(b, "spare", record.Set{Series: map[string][]float64{
		"ready": ready.seconds(), "exec": execs.seconds(), "ssh": sshs.seconds(), "refill": refills.seconds(),
		"private": private,
	}})
}

// spareWaits waits for a spare and gives its process.
func (l *labDaemon) spareWaits(b *testing.B) (pid int) {
	b.Helper()
	testkit.Eventually(b, time.Minute, "a spare guest waits", func() bool {
		notes, err := filepath.Glob(filepath.Join(l.Dir, "data", "*", "hypervisor-qemu", "spares", "*", "spare.json"))
		if err != nil {
			b.Fatal(err)
		}
		for _, path := range notes {
			var note struct {
				PID   int  `json:"pid"`
				Waits bool `json:"waits"`
			}
			text, err := os.ReadFile(path)
			if err == nil && json.Unmarshal(text, &note) == nil && note.Waits {
				pid = note.PID
				return true
			}
		}
		return false
	})
	return pid
}
