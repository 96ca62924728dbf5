package scheduler

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// fullStore is a store whose disk may be full: the scheduler can write nothing
// then, and guests cannot either.
type fullStore struct {
	Store

	mu sync.Mutex
	// mu guards:
	full   bool
	failed time.Time
}

func (s *fullStore) Commit(ctx context.Context, c state.Commit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		s.failed = time.Now()
		return fault.New(fault.Exhausted, "no space for the database")
	}
	return s.Store.Commit(ctx, c)
}

func (s *fullStore) WriteFailed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// fail is what a guest's sign of life comes to on a full disk.
func (s *fullStore) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = time.Now()
}

func (s *fullStore) fill(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// TestSilenceIsNotCountedWhileNobodyCouldHear: a guest has its whole time again
// after the host slept or the database could not write, and no more than that.
func TestSilenceIsNotCountedWhileNobodyCouldHear(t *testing.T) {
	tests := map[string]func(b *bench, store *fullStore){
		"the host slept": func(b *bench, _ *fullStore) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.looked = b.looked.Add(-time.Hour)
		},
		"the clock was set": func(b *bench, _ *fullStore) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.looked = b.looked.Add(time.Hour)
		},
		"a guest's write failed": func(_ *bench, store *fullStore) {
			store.fail()
		},
	}
	for name, happens := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "silent", func(b *bench) {
				var store fullStore
				b.adapt = func(c *Config) { store.Store, c.Store = c.Store, &store }
				b.start(-1)
				job := b.submitJob("destroy")
				time.Sleep(30 * time.Second)
				began := b.job(job.ID).LastSeen
				time.Sleep(time.Until(began.Add(170 * time.Second)))
				happens(b, &store)
				time.Sleep(160 * time.Second)
				synctest.Wait()
				if got := b.job(job.ID); got.State != lab.JobRunning {
					t.Fatalf("job is %s (%s) although its guest had no whole time to be heard", got.State, got.Reason)
				}
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if got := b.job(job.ID); got.State != lab.JobFailed || !strings.Contains(got.Reason, "no sign of life") {
					t.Errorf("job is %s (%s)", got.State, got.Reason)
				}
			})
		})
	}
}

func TestGuestIsHeardAfterTheDiskWasFull(t *testing.T) {
	inBubble(t, "silent", func(b *bench) {
		var store fullStore
		b.adapt = func(c *Config) { store.Store, c.Store = c.Store, &store }
		b.start(-1)
		job := b.submitJob("destroy")
		time.Sleep(30 * time.Second)
		store.fill(true)
		time.Sleep(20 * time.Minute) // past silence and deadline
		store.fail()                 // as every few seconds up to here
		store.fill(false)
		time.Sleep(20 * time.Second)
		if err := b.store.JobReported(context.Background(), job.ID, lab.JobReport{Status: "completed", Uploaded: true}); err != nil {
			t.Fatal(err)
		}
		b.settle()
		if got := b.job(job.ID); got.State != lab.JobCompleted {
			t.Errorf("job is %s (%s)%s", got.State, got.Reason, b.history())
		}
	})
}
