package bench_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
)

// BenchmarkJobToRunning is the control plane alone: from the request for a job
// to the event that its sandbox runs it, over simulated plugins whose machines
// take no time. The baseline is what its commits wait for: as many writes of one
// page that are brought to the disk, in the same file system.
func BenchmarkJobToRunning(b *testing.B) {
	s := testkit.NewSim(b)
	s.Start(b)
	var took samples
	var commits, counted int
	log := filepath.Join(s.Dir, "data", "agentlab.db-wal")
	for i := 0; i < max(b.N, 20); i++ {
		before := readWAL(b, log)
		d, id := jobToRunning(b, s)
		took = append(took, d)
		if n, ok := readWAL(b, log).since(before); ok {
			commits, counted = commits+n, counted+1
		}
		awaitGone(b, s, id)
	}
	hide(b)
	took.report(b, "running")
	if counted > 0 {
		perJob := float64(commits) / float64(counted)
		b.ReportMetric(perJob, "commits")
		b.ReportMetric(float64(took.quantile(0.5))/(perJob*float64(syncTime(b, s.Dir))), "×syncs-alone")
	}
}

// jobToRunning runs a job and says how long it took to its RUNNING.
func jobToRunning(b *testing.B, s *testkit.Sim) (time.Duration, string) {
	b.Helper()
	var oldest int64
	began := time.Now()
	a, err := s.Client.CreateJob(b.Context(), api.JobCreate{Profile: "plain", Task: "sim:print=x", RepoURL: "https://example.org/r.git"})
	if err != nil {
		b.Fatal(err)
	}
	for e, err := range s.Client.Events(b.Context(), client.EventQuery{After: &oldest, SandboxID: a.Sandbox.ID, Types: []string{lab.EventSandboxChanged}}) {
		if err != nil {
			b.Fatal(err)
		}
		if e.Fields["to"] == string(lab.SandboxRunning) {
			return time.Since(began), a.Job.ID
		}
	}
	b.Fatal("the sandbox never ran")
	return 0, ""
}

// awaitGone returns once the job's sandbox is destroyed, so that the next job does
// not share the processor with its end.
func awaitGone(b *testing.B, s *testkit.Sim, id string) {
	b.Helper()
	job, err := s.Client.WaitJob(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	var oldest int64
	for e, err := range s.Client.Events(b.Context(), client.EventQuery{After: &oldest, SandboxID: job.SandboxID, Types: []string{lab.EventSandboxChanged}}) {
		if err != nil {
			b.Fatal(err)
		}
		if e.Fields["to"] == string(lab.SandboxDestroyed) {
			return
		}
	}
	b.Fatal("the sandbox never went")
}

// syncTime is the median of what one commit at least costs: a page and its
// frame written and brought to the disk.
func syncTime(b *testing.B, dir string) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "baseline"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	page := make([]byte, frameHeader+4096)
	var took samples
	for range 200 {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took.quantile(0.5)
}
