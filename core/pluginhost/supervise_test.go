package pluginhost

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// fakes is a starter without processes: time is the test's.
type fakes struct {
	mu        sync.Mutex
	log       []string // what happened, in order
	started   []*fake
	exclusive bool
	user      func(n int) int                    // of process n
	starting  time.Duration                      // of each start
	settling  time.Duration                      // of each configuration
	immortal  bool                               // the first process does not end when it is told to
	refuse    func(n int, b Block) (bool, error) // whether start n fails when it is configured, and how
	health    func(ctx context.Context, f *fake) (plugin.Health, error)
}

type fake struct {
	owner *fakes
	n     int
	once  sync.Once
	done  chan struct{}
	exit  launch.Exit
}

func (f *fakes) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, what)
}

func (f *fakes) happened() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

func (f *fakes) newest() *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.started[len(f.started)-1]
}

func (f *fakes) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.started)
}

func (f *fakes) prepare(ctx context.Context, _ *instance, b Block) (*upProcess, error) {
	select {
	case <-time.After(f.starting):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.mu.Lock()
	one := &fake{owner: f, n: len(f.started) + 1, done: make(chan struct{})}
	f.started = append(f.started, one)
	f.mu.Unlock()
	var grant launch.Grant
	if f.user != nil {
		grant.UID = f.user(one.n)
	}
	return &upProcess{
		process: one, grant: grant, block: b, reported: make(chan struct{}), info: plugin.Info{Exclusive: f.exclusive, Version: b.Name},
		health: func(ctx context.Context) (plugin.Health, error) {
			if f.health != nil {
				return f.health(ctx, one)
			}
			return plugin.Health{State: plugin.Ready}, nil
		},
	}, nil
}

func (f *fakes) configure(ctx context.Context, _ *instance, up *upProcess) error {
	one := up.process.(*fake)
	f.note("configure " + string(rune('0'+one.n)))
	select {
	case <-time.After(f.settling):
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.refuse != nil {
		if refuse, err := f.refuse(one.n, up.block); refuse {
			return err
		}
	}
	return nil
}

func (f *fake) PID() int              { return f.n }
func (f *fake) Done() <-chan struct{} { return f.done }
func (f *fake) Exit() launch.Exit     { return f.exit }

func (f *fake) Stop(ctx context.Context) error {
	f.owner.mu.Lock()
	stays := f.owner.immortal && f.n == 1
	f.owner.mu.Unlock()
	if stays {
		return fault.New(fault.Internal, "it stays")
	}
	how := "stop "
	if ctx.Err() != nil {
		how = "kill "
	}
	f.once.Do(func() {
		f.owner.note(how + string(rune('0'+f.n)))
		close(f.done)
	})
	return nil
}

// die ends the process by itself.
func (f *fake) die() {
	f.once.Do(func() {
		f.exit = launch.Exit{Code: -1, Signal: "SIGSEGV", Output: "last words\n"}
		close(f.done)
	})
}

// supervised runs one instance over fakes in a bubble of time.
func supervised(t *testing.T, f *fakes, test func(t *testing.T, h *Host, i *instance)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{Blocks: []Block{{Kind: "secrets", Name: "toy"}}, StateDir: dir}, hclog.NewNullLogger())
		i := h.instances[0]
		i.starter = f
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		synctest.Wait()
		test(t, h, i)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s := i.snapshot(); s.State != Stopped || s.PID != 0 {
			t.Errorf("after the end: %+v", s)
		}
	})
}

func wantState(t *testing.T, i *instance, want State) Status {
	t.Helper()
	synctest.Wait()
	s := i.snapshot()
	if s.State != want {
		t.Fatalf("it is %s (%s), want %s", s.State, s.Message(time.Now()), want)
	}
	return s
}

// call is a call that takes a while; its error is that of its begin.
func call(i *instance, took time.Duration) error {
	a, err := i.begin(context.Background(), "/x.Y/Open", 1)
	if err != nil {
		return err
	}
	time.Sleep(took)
	return a.End(nil, false)
}

func TestFirstCrashCostsNoTime(t *testing.T) {
	f := &fakes{starting: 100 * time.Millisecond}
	supervised(t, f, func(t *testing.T, _ *Host, i *instance) {
		wantState(t, i, Starting)
		if err := call(i, 0); err != nil { // waits
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		f.newest().die()
		s := wantState(t, i, Starting)
		if got := s.Message(time.Now()); got != "killed by SIGSEGV (0.0 s ago), restarting" {
			t.Errorf("it says %q", got)
		}
		began := time.Now()
		if err := call(i, 0); err != nil || time.Since(began) != 100*time.Millisecond {
			t.Errorf("a call waited %s for the next process: %v", time.Since(began), err)
		}
		if s := wantState(t, i, Ready); s.Restarts != 1 || s.PID != 2 || s.Message(time.Now()) != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// What an operator looks for later is told: each failure, and that it is over.
func TestTurnsAreTold(t *testing.T) {
	f := &fakes{}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready) // the first start is no news
		var told []Turn
		h.cfg.Tell = func(turn Turn) { told = append(told, turn) }
		for range 2 {
			f.newest().die()
			eventuallyState(t, i, Ready, time.Minute)
		}
		reports := i.records.list
		want := []Turn{
			{Kind: "secrets", Name: "toy", State: Starting, Reason: "killed by SIGSEGV", CrashID: reports[1].ID},
			{Kind: "secrets", Name: "toy", State: Ready, Version: "toy", PID: 2},
			{Kind: "secrets", Name: "toy", State: Backoff, Reason: "killed by SIGSEGV", CrashID: reports[0].ID},
			{Kind: "secrets", Name: "toy", State: Ready, Version: "toy", PID: 3},
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	})
}

func TestQuarantine(t *testing.T) {
	f := &fakes{}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready)
		for n := range crashesAllowed {
			eventuallyState(t, i, Ready, time.Minute)
			time.Sleep(time.Second)
			f.newest().die()
			synctest.Wait()
			if n == 1 { // the first of those that have to wait
				began := time.Now()
				err := call(i, 0)
				if !errors.Is(err, fault.Unavailable) || time.Since(began) != 0 || !strings.Contains(err.Error(), "secrets toy is backoff: killed by SIGSEGV") {
					t.Errorf("a call in backoff took %s: %v", time.Since(began), err)
				}
			}
		}
		s := wantState(t, i, Quarantined)
		if !strings.Contains(s.Reason, "5 crashes within 5 min") || s.CrashID == "" {
			t.Errorf("status %+v", s)
		}
		if err := call(i, 0); err == nil || !strings.Contains(err.Error(), s.CrashID) {
			t.Errorf("a call in quarantine: %v", err)
		}
		wait := time.Until(s.NextStart)
		if wait < firstProbePause/2 || wait > firstProbePause {
			t.Errorf("the first probe is in %s", wait)
		}
		time.Sleep(wait)
		wantState(t, i, Ready) // half open: it serves
		f.newest().die()
		if s := wantState(t, i, Quarantined); time.Until(s.NextStart) < firstProbePause {
			t.Errorf("the second probe is in %s", time.Until(s.NextStart))
		}
		eventuallyState(t, i, Ready, time.Minute)
		time.Sleep(healedAfter + healthInterval)
		f.newest().die()
		wantState(t, i, Ready) // at once: it was healed, and starts take no time here
		d, err := h.Detail("secrets")
		if err != nil || len(d.Crashes) != crashesKept || d.Restarts != 7 {
			t.Errorf("%d reports, %d restarts, %v", len(d.Crashes), d.Restarts, err)
		}
	})
}

func eventuallyState(t *testing.T, i *instance, want State, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		if i.snapshot().State == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not %s within %s but %s", want, within, i.snapshot().State)
		}
	}
}

// silentAfter is a health that hangs in the n-th process from a time on.
func silentAfter(n int, d time.Duration) func(context.Context, *fake) (plugin.Health, error) {
	began := time.Time{}
	var mu sync.Mutex
	return func(ctx context.Context, f *fake) (plugin.Health, error) {
		mu.Lock()
		if began.IsZero() {
			began = time.Now()
		}
		silent := f.n == n && time.Since(began) >= d
		mu.Unlock()
		if silent {
			<-ctx.Done()
			return plugin.Health{}, fault.New(fault.Timeout, "no answer: %w", ctx.Err())
		}
		return plugin.Health{State: plugin.Ready}, nil
	}
}

func TestHungPluginIsKilledAndReplaced(t *testing.T) {
	f := &fakes{health: silentAfter(1, time.Minute)}
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		time.Sleep(time.Minute)
		began := time.Now()
		eventuallyState(t, i, Degraded, 15*time.Second)
		for f.count() == 1 && time.Since(began) < time.Hour {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("it was replaced after %s", took)
		}
		wantState(t, i, Ready)
		d, _ := h.Detail("secrets")
		if len(d.Crashes) != 1 || !strings.HasPrefix(d.Crashes[0].Reason, "killed because it did not answer for 1") {
			t.Errorf("reports %+v", d.Crashes)
		}
		if f.happened()[1] != "kill 1" {
			t.Errorf("it was not killed at once: %q", f.happened())
		}
	})
}

// TestTimedOutCallHasHealthLookedAt: who waits in vain is heard.
func TestTimedOutCallHasHealthLookedAt(t *testing.T) {
	f := &fakes{health: silentAfter(1, time.Second)}
	supervised(t, f, func(t *testing.T, _ *Host, i *instance) {
		time.Sleep(time.Second + time.Millisecond)
		a, err := i.begin(t.Context(), "/x.Y/Open", 1)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.End(fault.New(fault.Timeout, "too late"), false)
		time.Sleep(healthTimeout + time.Millisecond)
		wantState(t, i, Degraded)
	})
}

func TestBusyPluginIsLeftAlone(t *testing.T) {
	f := &fakes{}
	supervised(t, f, func(t *testing.T, _ *Host, i *instance) {
		if err := call(i, time.Hour); err != nil {
			t.Fatal(err)
		}
		wantState(t, i, Ready)
		if f.count() != 1 {
			t.Errorf("%d processes", f.count())
		}
	})
}

func TestDegradedPluginIsLeftAlone(t *testing.T) {
	f := &fakes{health: func(context.Context, *fake) (plugin.Health, error) {
		return plugin.Health{State: plugin.Unavailable, Message: "the disk is away"}, nil
	}}
	supervised(t, f, func(t *testing.T, _ *Host, i *instance) {
		time.Sleep(time.Hour)
		if s := wantState(t, i, Degraded); s.Message(time.Now()) != "the disk is away" || time.Since(s.Since) < time.Hour-time.Second || f.count() != 1 {
			t.Errorf("%+v after %s, %d processes", s, time.Since(s.Since), f.count())
		}
	})
}

// TestAnsweredErrorsAreNoSilence: one that says that it is late, or cannot, is
// there.
func TestAnsweredErrorsAreNoSilence(t *testing.T) {
	for _, class := range []fault.Class{fault.Timeout, fault.Unavailable, fault.Internal} {
		f := &fakes{health: func(context.Context, *fake) (plugin.Health, error) {
			return plugin.Health{}, fault.New(class, "the disk is away")
		}}
		supervised(t, f, func(t *testing.T, _ *Host, i *instance) {
			time.Sleep(time.Hour)
			if s := wantState(t, i, Degraded); !strings.Contains(s.Reason, "the disk is away") || f.count() != 1 {
				t.Errorf("%s: %+v, %d processes", class, s, f.count())
			}
		})
	}
}

func TestCallsWaitForAStartOnlySoLong(t *testing.T) {
	f := &fakes{starting: time.Hour}
	supervised(t, f, func(t *testing.T, _ *Host, i *instance) {
		began := time.Now()
		err := call(i, 0)
		if !errors.Is(err, fault.Unavailable) || time.Since(began) != waitForReady || !strings.Contains(err.Error(), "has been starting for 15 s") {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// TestReportsAreBounded also where they cannot be written.
func TestReportsAreBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := records{dir: filepath.Join(file, "crashes")}
	for range 3 * crashesKept {
		if err := r.add(Crash{ID: lab.NewID(crashPrefix)}); err == nil {
			t.Fatal("the report was written")
		}
	}
	if len(r.list) != crashesKept {
		t.Errorf("%d reports are kept", len(r.list))
	}
}

func TestReportsOutliveTheDaemonAndAreKeptToOurselves(t *testing.T) {
	f := &fakes{}
	dir := ""
	supervised(t, f, func(t *testing.T, h *Host, i *instance) {
		wantState(t, i, Ready)
		f.newest().die()
		wantState(t, i, Ready)
		dir = i.records.dir
	})
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %q, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "crash_x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := records{dir: dir}
	err = again.load()
	if len(again.list) != 1 || again.list[0].Output != "last words\n" || again.list[0].Signal != "SIGSEGV" {
		t.Errorf("read back: %+v", again.list)
	}
	if err == nil || !strings.Contains(err.Error(), "crash_x.json") {
		t.Errorf("a broken report: %v", err)
	}
}
