package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// BenchmarkStatusProcess is agentlab status as a person runs it, a process and
// all, beside agentlab version, which asks nobody.
func BenchmarkStatusProcess(b *testing.B) {
	s := testkit.NewSim(b)
	s.Start(b)
	bin := testkit.Bin(b, "agentlab")
	var status, version samples
	for i := 0; i < max(b.N, 40); i++ {
		status = append(status, timed(b, exec.Command(bin, "--socket", s.Socket(), "status")))
		version = append(version, timed(b, exec.Command(bin, "version")))
	}
	hide(b)
	status.report(b, "status")
	version.report(b, "version")
	b.ReportMetric(float64(status.quantile(0.5))/float64(version.quantile(0.5)), "×version")
}

func timed(b *testing.B, cmd *exec.Cmd) time.Duration {
	b.Helper()
	began := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s: %v", cmd, err)
	}
	return time.Since(began)
}

// BenchmarkDaemonStart is the time from the process's start until its API
// answers and no plugin is starting: without a plugin and with one of each kind.
// It also weighs what then idles.
func BenchmarkDaemonStart(b *testing.B) {
	for name, blocks := range map[string]func(s *testkit.Sim) string{
		"plugins=0": func(*testkit.Sim) string { return "" },
		"plugins=4": func(s *testkit.Sim) string { return s.Plugins() + s.Block("exposure", s.Plugin, "") },
	} {
		b.Run(name, func(b *testing.B) {
			var took samples
			var daemon, own, plugin []float64
			for i := 0; i < max(b.N, 5); i++ {
				s := testkit.NewSim(b)
				s.WriteConfig(b, s.Config(blocks(s)))
				took = append(took, startTime(b, s))
				time.Sleep(time.Second)
				daemon = append(daemon, resident(b, s.PID(), "VmRSS"))
				own = append(own, resident(b, s.PID(), "RssAnon"))
				for _, pid := range s.PluginPIDs() {
					plugin = append(plugin, resident(b, pid, "VmRSS"))
				}
				s.Term(b)
			}
			hide(b)
			took.report(b, "ready")
			b.ReportMetric(median(daemon), "daemon-MiB")
			b.ReportMetric(median(own), "daemon-own-MiB")
			if len(plugin) > 0 {
				b.ReportMetric(median(plugin), "plugin-MiB")
			}
		})
	}
}

func startTime(b *testing.B, s *testkit.Sim) time.Duration {
	b.Helper()
	began := time.Now()
	s.Begin(b)
	for time.Since(began) < 30*time.Second {
		st, err := s.Client.Status(b.Context())
		waiting := err != nil
		for _, p := range st.Plugins {
			waiting = waiting || p.State == "starting" || p.State == "stopped"
		}
		if !waiting {
			return time.Since(began)
		}
		time.Sleep(time.Millisecond)
	}
	b.Fatal("the daemon did not start")
	return 0
}

// resident is how much of a process is in memory, in MiB: VmRSS all of it, RssAnon
// what is not the content of files.
func resident(b *testing.B, pid int, which string) float64 {
	b.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), which+":")
	var kib float64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		b.Fatalf("%s of %d: %v", which, pid, err)
	}
	return kib / 1024
}

func median(all []float64) float64 {
	var s samples
	for _, v := range all {
		s = append(s, time.Duration(v*1e6))
	}
	return float64(s.quantile(0.5)) / 1e6
}
