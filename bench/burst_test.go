package bench_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/bench/internal/record"
)

// BenchmarkBurst asks for many sandboxes at once. What the host could do at most is
// its processors divided by what one start alone takes of them.
func BenchmarkBurst(b *testing.B) {
	l := newLabDaemon(b)
	l.warm(b)
	n := count(b, "AGENTLAB_BENCH_BURST", 20)
	var alone samples
	for range 3 {
		one := l.memoryStart(b, overChannel)
		alone = append(alone, one.cpu)
		l.destroy(b, one)
	}
	all := make([]started, n)
	began := time.Now()
	l.startAll(b, all)
	took := time.Since(began)
	var outputs, cpu samples
	for _, s := range all {
		outputs, cpu = append(outputs, s.output), append(cpu, s.cpu)
	}
	l.destroy(b, all...)
	rate := float64(n) / took.Seconds()
	bound := float64(runtime.NumCPU()) / alone.quantile(0.5).Seconds()
	hide(b)
	outputs.report(b, "exec")
	b.ReportMetric(rate, "starts/s")
	b.ReportMetric(rate/bound, "×cores/cpu-of-one")
	keep(b, "burst", record.Set{
		Series: map[string][]float64{"exec": outputs.seconds(), "cpu": cpu.seconds(), "cpu_alone": alone.seconds()},
		Values: map[string]float64{"rate": rate, "bound": bound, "n": float64(n)},
	})
}

// startAll starts as many sandboxes as all has room for, at once; each of them must
// come up, from memory.
func (l *labDaemon) startAll(b *testing.B, all []started) {
	b.Helper()
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i := range all {
		wait.Go(func() { all[i], errs[i] = l.create(b.Context(), overChannel) })
	}
	wait.Wait()
	for i, err := range errs {
		switch {
		case err != nil:
			b.Errorf("start %d of %d: %v", i+1, len(all), err)
		case all[i].way != "memory":
			b.Errorf("%s came up by a %s", all[i].Name, all[i].way)
		}
	}
	if b.Failed() {
		b.FailNow()
	}
}
