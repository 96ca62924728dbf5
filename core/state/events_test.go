package state

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/lab"
)

func TestEventsResumeByID(t *testing.T) {
	s := open(t)
	sb, other := putSandbox(t, s, "a"), putSandbox(t, s, "b")
	for i := range 10 {
		check(t, s.AppendEvent(t.Context(), lab.Event{Type: lab.EventGuestDenied, SandboxID: sb.ID, Message: fmt.Sprint(i), Fields: map[string]string{"call": "x"}}))
	}
	var after int64
	var got []string
	for {
		page := eventsOf(s, EventFilter{After: after, SandboxID: sb.ID, Types: []string{lab.EventGuestDenied}, Limit: 3})
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			if e.ID <= after || e.Fields["call"] != "x" {
				t.Errorf("event %+v after %d", e, after)
			}
			after = e.ID
			got = append(got, e.Message)
		}
	}
	if fmt.Sprint(got) != "[0 1 2 3 4 5 6 7 8 9]" {
		t.Errorf("read %v", got)
	}
	newest := eventsOf(s, EventFilter{Limit: 2, Newest: true})
	if len(newest) != 2 || newest[0].Message != "8" || newest[1].Message != "9" {
		t.Errorf("newest are %+v", newest)
	}
	if n := len(eventsOf(s, EventFilter{SandboxID: other.ID})); n != 2 {
		t.Errorf("%d events of the other sandbox, want 2", n)
	}
}

func TestWatchWakesAfterTheCommit(t *testing.T) {
	s := open(t)
	sb := putSandbox(t, s, "a")
	all, stopAll := s.Watch()
	mine, stopMine := s.WatchSandbox(sb.ID)
	others, stopOthers := s.WatchSandbox("sbx_other")
	defer stopAll()
	defer stopOthers()
	for range 3 {
		check(t, s.AppendEvent(t.Context(), lab.Event{Type: "x", SandboxID: sb.ID}))
	}
	for name, ch := range map[string]<-chan struct{}{"all": all, "mine": mine} {
		select {
		case <-ch:
		default:
			t.Errorf("%s was not woken", name)
		}
		select {
		case <-ch:
			t.Errorf("%s was woken twice though nobody took the first", name)
		default:
		}
	}
	select {
	case <-others:
		t.Error("a watcher of another sandbox was woken")
	default:
	}
	stopMine()
	check(t, s.AppendEvent(t.Context(), lab.Event{Type: "x", SandboxID: sb.ID}))
	select {
	case <-mine:
		t.Error("a stopped watcher was woken")
	default:
	}
}

func TestPruneEventsGoesInBatches(t *testing.T) {
	s := open(t)
	old := time.Now().Add(-time.Hour)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range (pruneBatch + 40) / 4 {
				check(t, s.AppendEvent(t.Context(), lab.Event{Type: "x", At: old}))
			}
		})
	}
	wg.Wait()
	check(t, s.AppendEvent(t.Context(), lab.Event{Type: "new"}))
	for i, want := range []bool{true, false} {
		more, err := s.PruneEvents(t.Context(), time.Now().Add(-time.Minute))
		if err != nil || more != want {
			t.Errorf("call %d: more is %v, %v", i, more, err)
		}
	}
	left := eventsOf(s, EventFilter{})
	if len(left) != 1 || left[0].Type != "new" {
		t.Errorf("%d events are left", len(left))
	}
	check(t, s.AppendEvent(t.Context(), lab.Event{Type: "x"}))
	if last := eventsOf(s, EventFilter{}); last[1].ID != left[0].ID+1 {
		t.Errorf("ids %d and %d", last[0].ID, last[1].ID)
	}
}

func TestEventBefore(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	if id, err := s.EventBefore(ctx, time.Now()); id != 0 || err != nil {
		t.Errorf("without events: %d, %v", id, err)
	}
	start := time.UnixMilli(1_700_000_000_000)
	for i := range 100 {
		if err := s.AppendEvent(ctx, lab.Event{Type: "t", At: start.Add(time.Duration(i/2) * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.writer.ExecContext(ctx, `DELETE FROM events WHERE id <= 10 OR id BETWEEN 41 AND 60`); err != nil {
		t.Fatal(err)
	}
	for after := -2 * time.Second; after < time.Minute; after += 500 * time.Millisecond {
		at := start.Add(after)
		id, err := s.EventBefore(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		later, err := s.Events(ctx, EventFilter{After: id})
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.Events(ctx, EventFilter{})
		if err != nil {
			t.Fatal(err)
		}
		want := slices.DeleteFunc(all, func(e lab.Event) bool { return e.At.Before(at) })
		if len(later) != len(want) {
			t.Errorf("%s after the start: %d events behind id %d, want %d", after, len(later), id, len(want))
		}
	}
}
