package scheduler

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

// stallStore stops answering what it is told to, as a store whose only
// connection was never given back.
type stallStore struct {
	Store
	reads, writes atomic.Bool
}

func (s *stallStore) Operations(ctx context.Context, f state.OperationFilter) ([]lab.Operation, error) {
	if s.reads.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Operations(ctx, f)
}

func (s *stallStore) Ping(ctx context.Context) error {
	if s.writes.Load() {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // the store's own
		defer cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.Ping(ctx)
}

// beats makes the bench record its beats, at most within apart.
func (b *bench) beats(within time.Duration) (*stallStore, func() []time.Time) {
	var store stallStore
	var at []time.Time // written by the loop only, read while all wait
	b.adapt = func(c *Config) {
		store.Store = c.Store
		c.Store, c.Beat, c.BeatWithin = &store, func() { at = append(at, time.Now()) }, within
	}
	return &store, func() []time.Time {
		synctest.Wait()
		return slices.Clone(at)
	}
}

// longest is the longest pause between two of them.
func longest(at []time.Time) (most time.Duration) {
	for i := range len(at) - 1 {
		most = max(most, at[i+1].Sub(at[i]))
	}
	return most
}

// TestBeatsWhileBusy: calls that take minutes and wakes without end neither
// keep beats back nor make more of them.
func TestBeatsWhileBusy(t *testing.T) {
	for _, within := range []time.Duration{2 * time.Second, 30 * time.Second} {
		t.Run(within.String(), func(t *testing.T) {
			inBubble(t, "", func(b *bench) {
				_, beats := b.beats(within)
				b.world.createFor = 5 * time.Minute
				b.start(-1)
				if n := len(beats()); n != 1 {
					t.Fatalf("%d beats after the first look, want 1", n)
				}
				b.submitJob("destroy")
				for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(20 * time.Millisecond) {
					b.Wake()
				}
				time.Sleep(time.Minute)
				at := beats()
				if pause := longest(at); pause > within {
					t.Errorf("%s without a beat", pause)
				}
				if most := int(3*time.Minute/min(within/4, 2500*time.Millisecond)) + 1; len(at) > most {
					t.Errorf("%d beats in three minutes, want at most %d", len(at), most)
				}
			})
		})
	}
}

// TestNoBeatWithoutTheStore: a store that does not answer keeps beats back,
// whether it is read or written that hangs.
func TestNoBeatWithoutTheStore(t *testing.T) {
	for _, what := range []string{"reads", "writes"} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, "", func(b *bench) {
				store, beats := b.beats(10 * time.Second)
				b.start(-1)
				time.Sleep(time.Minute)
				before := len(beats())
				if before < 6 {
					t.Fatalf("%d beats in the first minute", before)
				}
				stalled := &store.writes
				if what == "reads" {
					stalled = &store.reads
				}
				stalled.Store(true)
				time.Sleep(10 * time.Minute)
				if n := len(beats()) - before; n > 0 {
					t.Errorf("%d beats while %s hang", n, what)
				}
				stalled.Store(false)
				time.Sleep(time.Minute)
				// A read that hangs for ever holds the loop for ever.
				if n := len(beats()) - before; (n > 0) != (what == "writes") {
					t.Errorf("%d beats after %s answered again", n, what)
				}
			})
		})
	}
}
