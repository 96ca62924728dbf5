package bench_test

import (
	"slices"
	"testing"
	"time"
)

// samples are times of one thing, measured again and again.
type samples []time.Duration

func (s samples) quantile(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// report adds the median, and with enough samples the 99th percentile.
func (s samples) report(b *testing.B, what string) {
	b.Helper()
	if len(s) == 0 {
		b.Fatalf("no samples of %s", what)
	}
	b.ReportMetric(milliseconds(s.quantile(0.5)), what+"-p50-ms")
	if len(s) >= 100 {
		b.ReportMetric(milliseconds(s.quantile(0.99)), what+"-p99-ms")
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// hide leaves out ns/op: what counts is reported by name.
func hide(b *testing.B) { b.ReportMetric(0, "ns/op") }
