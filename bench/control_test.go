package bench_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // the baseline's driver

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
)

// BenchmarkJobToRunning is the control plane alone: from the request for a job
// to the event that its sandbox runs it, over simulated plugins whose machines
// take no time. The baseline is as many commits of one small row in the same
// file system, since each waits for the disk.
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
		if _, err := s.Client.WaitJob(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
	hide(b)
	took.report(b, "running")
	if counted > 0 {
		perJob := float64(commits) / float64(counted)
		b.ReportMetric(perJob, "commits")
		b.ReportMetric(float64(took.quantile(0.5))/(perJob*float64(commitTime(b, s.Dir))), "×commits-alone")
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

// commitTime is the median of one commit of one row, settings as the store's.
func commitTime(b *testing.B, dir string) time.Duration {
	b.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "baseline.db")+"?_journal_mode=WAL&_synchronous=FULL&_txlock=immediate")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE t (n INTEGER, text TEXT) STRICT`); err != nil {
		b.Fatal(err)
	}
	var took samples
	for i := range 200 {
		began := time.Now()
		if _, err := db.Exec(`INSERT INTO t VALUES (?, 'a row of about the length of an event')`, i); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	return took.quantile(0.5)
}
