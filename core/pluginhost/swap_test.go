package pluginhost

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

func TestReplacedBesideTheOldOne(t *testing.T) {
	f := &fakes{}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		running := make(chan error, 1)
		wantState(t, i, Ready)
		go func() { running <- call(i, time.Minute) }()
		synctest.Wait()
		if err := h.Restart(t.Context(), "toy"); err != nil {
			t.Fatal(err)
		}
		if s := wantState(t, i, Ready); s.PID != 2 {
			t.Errorf("process %d serves", s.PID)
		}
		if got := strings.Join(f.happened(), ", "); got != "configure 1, configure 2" {
			t.Errorf("while a call runs: %s", got)
		}
		if err := <-running; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := strings.Join(f.happened(), ", "); got != "configure 1, configure 2, stop 1" {
			t.Errorf("in the end: %s", got)
		}
	})
}

func TestOldOneIsEndedInTheEnd(t *testing.T) {
	f := &fakes{}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready)
		done := make(chan error, 1)
		go func() { done <- call(i, time.Hour) }()
		synctest.Wait()
		if err := h.Restart(t.Context(), "secrets"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retirePatience + time.Second)
		if got := f.happened(); got[len(got)-1] != "stop 1" {
			t.Errorf("after %s the old process was not ended: %q", retirePatience, got)
		}
		<-done
	})
}

// TestLongestCallSurvivesAReplacement: a VM may take ten minutes to be made.
func TestLongestCallSurvivesAReplacement(t *testing.T) {
	f := &fakes{}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready)
		done := make(chan error, 1)
		go func() { done <- call(i, 10*time.Minute) }()
		synctest.Wait()
		if err := h.Restart(t.Context(), "secrets"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute - time.Second)
		if got := strings.Join(f.happened(), ", "); got != "configure 1, configure 2" {
			t.Errorf("while the call runs: %s", got)
		}
		<-done
		synctest.Wait()
		if got := strings.Join(f.happened(), ", "); got != "configure 1, configure 2, stop 1" {
			t.Errorf("after it: %s", got)
		}
	})
}

func TestOldOneStaysWhenTheNewOneFails(t *testing.T) {
	f := &fakes{refuse: func(n int, _ Block) (bool, error) { return n == 2, fault.New(fault.Unavailable, "no luck") }}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready)
		if err := h.Restart(t.Context(), "toy"); err == nil || !strings.Contains(err.Error(), "no luck") {
			t.Errorf("restart: %v", err)
		}
		if s := wantState(t, i, Ready); s.PID != 1 {
			t.Errorf("process %d serves", s.PID)
		}
		if got := strings.Join(f.happened(), ", "); got != "configure 1, configure 2, stop 2" {
			t.Errorf("what happened: %s", got)
		}
	})
}

func TestExclusivePluginIsNeverConfiguredTwice(t *testing.T) {
	f := &fakes{exclusive: true, starting: time.Second}
	f.refuse = func(n int, _ Block) (bool, error) { return n == 3, fault.New(fault.Unavailable, "no luck") }
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		time.Sleep(time.Second)
		wantState(t, i, Ready)
		began := time.Now()
		if err := h.Restart(t.Context(), "toy"); err != nil || time.Since(began) != time.Second {
			t.Fatalf("after %s: %v", time.Since(began), err)
		}
		if err := h.Restart(t.Context(), "toy"); err == nil {
			t.Error("the second restart succeeded")
		}
		waited := time.Now()
		if err := call(i, 0); err != nil || time.Since(waited) != time.Second {
			t.Errorf("a call waited %s for the old block: %v", time.Since(waited), err)
		}
		if got := strings.Join(f.happened(), ", "); got != "configure 1, stop 1, configure 2, stop 2, configure 3, stop 3, configure 4" {
			t.Errorf("what happened: %s", got)
		}
		if len(i.crashes) != 0 {
			t.Errorf("reports %+v", i.crashes)
		}
	})
}

// The state folder goes to another user only when nobody works in it any more, and
// comes back when that one fails.
func TestAnotherUserIsNeverConfiguredBesideTheOldOne(t *testing.T) {
	f := &fakes{user: func(n int) int { return []int{0, 7, 7, 8, 7}[n] }}
	f.refuse = func(n int, _ Block) (bool, error) { return n == 3, fault.New(fault.Unavailable, "no luck") }
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready)
		if err := h.Restart(t.Context(), "toy"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := h.Restart(t.Context(), "toy"); err == nil {
			t.Error("the second restart succeeded")
		}
		wantState(t, i, Ready)
		if got := strings.Join(f.happened(), ", "); got != "configure 1, configure 2, stop 1, stop 2, configure 3, stop 3, configure 4" {
			t.Errorf("what happened: %s", got)
		}
	})
}

// TestExclusivePluginFinishesItsCalls: for a while; then it is told to drain.
func TestExclusivePluginFinishesItsCalls(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{5 * time.Second: 5 * time.Second, time.Hour: gapPatience} {
		f := &fakes{exclusive: true}
		supervised(t, f, func(t *testing.T, h *Host, i *instance) {
			wantState(t, i, Ready)
			done := make(chan error, 1)
			go func() { done <- call(i, took) }()
			synctest.Wait()
			began := time.Now()
			if err := h.Restart(t.Context(), "toy"); err != nil || time.Since(began) != want {
				t.Errorf("with a call of %s the restart took %s: %v", took, time.Since(began), err)
			}
			<-done
		})
	}
}

// TestCallsWaitForTheGap: as long as they may, however long it is.
func TestCallsWaitForTheGap(t *testing.T) {
	f := &fakes{exclusive: true, settling: 40 * time.Second}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		time.Sleep(f.settling)
		wantState(t, i, Ready)
		done := make(chan error, 1)
		go func() { done <- h.Restart(t.Context(), "toy") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := i.begin(ctx, "/x.Y/Open", 1); !errors.Is(err, fault.Unavailable) || time.Since(began) != 20*time.Second {
			t.Errorf("a call of 20 s waited %s: %v", time.Since(began), err)
		}
		if err := call(i, 0); err != nil || time.Since(began) != f.settling {
			t.Errorf("another waited %s: %v", time.Since(began), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestStopInTheGap: who asked for a replacement is free when its time is over.
func TestStopInTheGap(t *testing.T) {
	f := &fakes{exclusive: true, settling: time.Minute}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		time.Sleep(f.settling)
		wantState(t, i, Ready)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := h.Restart(ctx, "toy"); !errors.Is(err, fault.Timeout) || time.Since(began) != time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// TestNothingIsConfiguredBesideOneThatStays: an exclusive plugin is down rather
// than there twice.
func TestNothingIsConfiguredBesideOneThatStays(t *testing.T) {
	f := &fakes{exclusive: true, immortal: true}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready)
		for range 2 {
			if err := h.Restart(t.Context(), "toy"); err == nil || !strings.Contains(err.Error(), "the old process 1 of plugin secrets toy does not end") {
				t.Errorf("restart: %v", err)
			}
			if s := wantState(t, i, Backoff); !strings.Contains(s.Reason, "does not end") {
				t.Errorf("status %+v", s)
			}
		}
		time.Sleep(time.Minute)
		if got := strings.Join(f.happened(), ", "); got != "configure 1, stop 2, stop 3" {
			t.Errorf("what happened: %s", got)
		}
		f.started[0].die()
		eventuallyState(t, i, Ready, time.Minute)
	})
}
