package state

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	writerEnv = "AGENTLAB_STATE_TEST_WRITER"
	perWriter = 30
)

// TestMain also is the second process of TestTwoProcesses.
func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		if err := secondWriter(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func secondWriter(path string) error {
	s, err := Open(context.Background(), path)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	return reserveMany(context.Background(), s, "second")
}

func reserveMany(ctx context.Context, s *Store, prefix string) error {
	r := testRange
	r.Last = 9999
	for i := range perWriter {
		sb := newSandbox(fmt.Sprintf("%s-%d", prefix, i))
		if err := s.Submit(ctx, Submission{Sandbox: &sb}); err != nil {
			return err
		}
		if _, err := s.Reserve(ctx, sb.ID, r); err != nil {
			return err
		}
	}
	return nil
}

func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	exe, err := os.Executable()
	check(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	cmd.Stderr = os.Stderr
	check(t, cmd.Start())
	s, err := Open(t.Context(), path) // both may migrate
	check(t, err)
	defer func() { check(t, s.Close()) }()
	check(t, reserveMany(t.Context(), s, "first"))
	check(t, cmd.Wait())
	wantDistinct(t, s, 2*perWriter)
}

func TestManyWritersAndReaders(t *testing.T) {
	s := open(t)
	var writers, others sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 8 {
		writers.Go(func() {
			if err := reserveMany(t.Context(), s, fmt.Sprintf("w%d", i)); err != nil {
				t.Error(err)
			}
		})
		others.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Counts(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	cancel()
	others.Wait()
	wantDistinct(t, s, 8*perWriter)
}

func wantDistinct(t *testing.T, s *Store, n int) {
	t.Helper()
	all, err := s.Sandboxes(t.Context(), SandboxFilter{})
	check(t, err)
	vmids, addresses := map[uint32]bool{}, map[string]bool{}
	for _, sb := range all {
		vmids[sb.VMID], addresses[sb.Address.String()] = true, true
	}
	if len(all) != n || len(vmids) != n || len(addresses) != n {
		t.Errorf("%d sandboxes, %d VMIDs, %d addresses, want %d of each", len(all), len(vmids), len(addresses), n)
	}
	checkCounts(t, s)
}

func TestWriteEndsWithItsContext(t *testing.T) {
	s := open(t)
	sb := putSandbox(t, s, "a")
	block, err := s.writer.BeginTx(t.Context(), nil)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = s.AppendEvent(ctx, lab.Event{Type: "x", SandboxID: sb.ID})
	wantClass(t, err, fault.Timeout)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("returned after %s", took)
	}
	check(t, block.Rollback())
}

func TestReadersCannotWrite(t *testing.T) {
	s := open(t)
	if _, err := s.reader.ExecContext(t.Context(), "DELETE FROM meta"); err == nil {
		t.Error("the pool of readers can write")
	}
}

func TestHostUUIDNeverChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var ids [2]string
	for i := range ids {
		s, err := Open(t.Context(), path)
		check(t, err)
		ids[i], err = s.HostUUID(t.Context())
		check(t, err)
		check(t, s.Close())
	}
	if ids[0] != ids[1] || len(ids[0]) != 36 {
		t.Errorf("host uuid is %q, then %q", ids[0], ids[1])
	}
}

func TestWriteFailedTellsOfTheDatabaseAlone(t *testing.T) {
	s := open(t)
	fill := func(ctx context.Context) (err error) {
		for range 200 {
			if err = s.AppendEvent(ctx, lab.Event{Type: "test.filled", Message: strings.Repeat("x", 4096)}); err != nil {
				return err
			}
		}
		return nil
	}
	check(t, fill(t.Context()))
	wantClass(t, s.JobReported(t.Context(), "job_none", lab.JobReport{}), fault.NotFound)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if fill(gone) == nil {
		t.Error("wrote for a caller who is gone")
	}
	if at := s.WriteFailed(); !at.IsZero() {
		t.Fatalf("write failed at %s, says a database that refused a call or lost a caller", at)
	}
	before := time.Now().Truncate(time.Millisecond)
	_, err := s.writer.ExecContext(t.Context(), "PRAGMA max_page_count = 1") // as large as it is
	check(t, err)
	wantClass(t, fill(t.Context()), fault.Exhausted)
	if at := s.WriteFailed(); at.Before(before) {
		t.Errorf("write failed at %s, want the time of the failure", at)
	}
}
