package pluginhost

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// benchHost runs the toy.
func benchHost(b *testing.B) *Host {
	b.Helper()
	dir, err := os.MkdirTemp("", "al")
	if err != nil {
		b.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", dir, "./testdata/agentlab-plugin-toy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build plugin: %v\n%s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(dir, "r"), 0o700); err != nil {
		b.Fatal(err)
	}
	file, diags := hclsyntax.ParseConfig([]byte("folder = \"/f\"\n"), "x.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	h := New(Config{
		Blocks:    []Block{{Kind: "secrets", Name: "toy", Body: file.Body}},
		PluginDir: dir, RunDir: filepath.Join(dir, "r"), StateDir: filepath.Join(dir, "s"),
	}, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
		_ = os.RemoveAll(dir)
	})
	if err := h.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	return h
}

// BenchmarkCall is a call through the host, with its deadlines, retries and
// counters, beside one by the client that go-plugin gives for the same process.
// They take turns, so that both meet the same machine.
func BenchmarkCall(b *testing.B) {
	h := benchHost(b)
	ours, bare := h.Secrets(), secrets.NewClient(h.find(plugin.Secrets).current.line.Conn())
	var a, z []time.Duration
	for range max(b.N, 2000) {
		for _, one := range []struct {
			driver secrets.Driver
			took   *[]time.Duration
		}{{ours, &a}, {bare, &z}} {
			began := time.Now()
			if _, err := one.driver.List(b.Context()); err != nil {
				b.Fatal(err)
			}
			*one.took = append(*one.took, time.Since(began))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(middle(a), "call-p50-us")
	b.ReportMetric(middle(z), "bare-p50-us")
	b.ReportMetric(middle(a)/middle(z), "×bare")
}

// BenchmarkRestart is the time from the death of a process that ran well until
// the next one answers a call.
func BenchmarkRestart(b *testing.B) {
	h := benchHost(b)
	var took []time.Duration
	for range max(b.N, 20) {
		if err := h.Restart(b.Context(), "secrets"); err != nil { // forgets the crash before
			b.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		began := time.Now()
		if err := syscall.Kill(h.List()[0].PID, syscall.SIGKILL); err != nil {
			b.Fatal(err)
		}
		if _, err := h.Secrets().List(b.Context()); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(middle(took)/1000, "restart-p50-ms")
}

// middle is the median in microseconds.
func middle(d []time.Duration) float64 {
	return float64(slices.Sorted(slices.Values(d))[len(d)/2]) / float64(time.Microsecond)
}
