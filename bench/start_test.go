package bench_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/agentlab/agentlab/bench/internal/record"
)

// count is how often something is done, from the environment or by default.
func count(b *testing.B, name string, otherwise int) int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("%s=%s is not a number above 0", name, text)
	}
	return n
}

// BenchmarkStart is the time from the request for a sandbox to the output of the
// first command in it, one sandbox after the other: from memory, and by a boot.
// The baseline is the same work of QEMU and guest without us: from the same
// memory template, with the arguments of our own QEMU.
func BenchmarkStart(b *testing.B) {
	l := newLabDaemon(b)
	took := l.warm(b)
	starts, boots := count(b, "AGENTLAB_BENCH_STARTS", 20), count(b, "AGENTLAB_BENCH_BOOTS", 3)
	var vm, ready, execs, sshs, handExecs, handSSHs, cold samples
	var cpu samples
	steps := map[string]samples{}
	var h *hand
	for range starts {
		one := l.memoryStart(b, overChannel)
		vm, ready, execs, cpu = append(vm, one.vm), append(ready, one.ready), append(execs, one.output), append(cpu, one.cpu)
		for name, took := range one.steps {
			steps[name] = append(steps[name], took)
		}
		if h == nil {
			h = newHand(b, l, one.pid)
		}
		l.destroy(b, one)
		handExecs = append(handExecs, h.start(b, false))
		one = l.memoryStart(b, overSSH)
		sshs = append(sshs, one.output)
		l.destroy(b, one)
		handSSHs = append(handSSHs, h.start(b, true))
	}
	l.withoutMemory(b)
	for range boots {
		one := l.start(b, overChannel)
		if one.way != "boot" {
			b.Fatalf("%s came up from %s", one.Name, one.way)
		}
		cold = append(cold, one.output)
		l.destroy(b, one)
	}
	hide(b)
	vm.report(b, "vm-on")
	ready.report(b, "ready")
	execs.report(b, "exec")
	handExecs.report(b, "hand-exec")
	sshs.report(b, "ssh")
	handSSHs.report(b, "hand-ssh")
	cold.report(b, "cold")
	b.ReportMetric(execs.over(handExecs), "×hand-exec")
	b.ReportMetric(sshs.over(handSSHs), "×hand-ssh")
	series := map[string][]float64{
		"vm_on": vm.seconds(), "ready": ready.seconds(), "exec": execs.seconds(), "hand_exec": handExecs.seconds(),
		"ssh": sshs.seconds(), "hand_ssh": handSSHs.seconds(), "cold": cold.seconds(), "cpu": cpu.seconds(),
	}
	for name, took := range steps {
		took.report(b, "step-"+name)
		series["step "+name] = took.seconds()
	}
	keep(b, "start", record.Set{Series: series, Values: map[string]float64{"warm": took.Seconds()}})
}

func (l *labDaemon) start(b *testing.B, first command) started {
	b.Helper()
	one, err := l.create(b.Context(), first)
	if err != nil {
		b.Fatal(err)
	}
	return one
}

// memoryStart is a start that must be from memory.
func (l *labDaemon) memoryStart(b *testing.B, first command) started {
	b.Helper()
	one := l.start(b, first)
	if one.way != "memory" {
		b.Fatalf("%s came up by a %s", one.Name, one.way)
	}
	return one
}

func keep(b *testing.B, name string, s record.Set) {
	b.Helper()
	if err := record.Write(name, s); err != nil {
		b.Fatal(err)
	}
}

func (s samples) seconds() []float64 {
	var out []float64
	for _, d := range s {
		out = append(out, d.Round(time.Millisecond).Seconds())
	}
	return out
}

// over is how many times a baseline's median these take.
func (s samples) over(baseline samples) float64 {
	return float64(s.quantile(0.5)) / float64(baseline.quantile(0.5))
}
