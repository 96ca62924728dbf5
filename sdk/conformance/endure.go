package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	crowd      = 32 // callers at a time
	manyCalls  = 10_000
	manyTime   = time.Minute // for a plugin whose calls take long
	callLimit  = 30 * time.Second
	growthRSS  = 8 << 20
	growthFew  = 8 // descriptors, threads
	settleTime = 5 * time.Second
)

// lasting is the state of one check: a plugin that is started and configured.
type lasting struct {
	Binary
	process *launch.Process
	conn    caller
}

// Endurance checks that a plugin bears what a host under load and a machine in
// trouble do to it. Nothing is changed.
func Endurance(b Binary) []Check {
	return bind("", endureRules, func(ctx context.Context, _ Rule, fn func(*lasting, context.Context) error) error {
		p, _, done, err := b.start(ctx)
		if err != nil {
			return err
		}
		defer done()
		return fn(&lasting{b, p, p.Conn()}, ctx)
	})
}

var endureRules = []ruled[*lasting]{
	reads("resilience.concurrent", 3, "lets 32 callers read at the same time",
		"Calls are concurrent unless their contract says otherwise, and end when the caller cancels.", (*lasting).concurrent),
	reads("resilience.many-calls", 3, "makes 10,000 calls, or as many as a minute has, and compares memory, descriptors, threads and children",
		"A plugin runs for months: a call leaves nothing behind in its process.", (*lasting).many),
	reads("resilience.cancelled-calls", 3, "cancels 2000 calls at once or soon, and compares memory, descriptors, threads and children",
		"Calls are concurrent unless their contract says otherwise, and end when the caller cancels.", (*lasting).cancelled),
	reads("resilience.stopped", 3, "stops the process by SIGSTOP for a while",
		"After a pause of its process it goes on as if nothing had happened.", (*lasting).stopped),
	reads("resilience.tool-missing", 3, "starts it with a PATH that lacks its tools",
		"A tool that is missing is found_path \"\", a finding or a health that says so, and an error with a class; it is no reason not to start.", (*lasting).toolMissing),
	reads("resilience.tool-hangs", 3, "starts it with tools that never end, and looks whether they end with each call that reads",
		"A tool that hangs does not make its caller hang: what a call started ends with the call.", (*lasting).toolHangs),
}

// readAll makes each call that changes nothing, at the same time. That they may
// fail is no wonder.
func (s *subject) readAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, call := range readCalls(s.Kind, s.conn) {
		wg.Go(func() { _ = call(ctx) })
	}
	wg.Wait()
}

func (l *lasting) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return readCall(ctx, l.Kind, l.conn)
}

func (l *lasting) concurrent(ctx context.Context) error {
	return l.calls(ctx, crowd*8)
}

// calls makes n calls by a crowd, and gives the first error.
func (l *lasting) calls(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, manyTime)
	defer cancel()
	var left atomic.Int64
	left.Store(n)
	errs := make([]error, crowd)
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil && errs[i] == nil {
				if err := l.read(ctx); err != nil && ctx.Err() == nil {
					errs[i] = fmt.Errorf("one of %d callers at the same time: %w", crowd, err)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *lasting) many(ctx context.Context) error {
	return l.unchanged(ctx, func() error { return l.calls(ctx, manyCalls) })
}

func (l *lasting) cancelled(ctx context.Context) error {
	return l.unchanged(ctx, func() error {
		for i := range 2000 {
			short, cancel := context.WithTimeout(ctx, time.Duration(i%20)*100*time.Microsecond)
			start := time.Now()
			_ = readCall(short, l.Kind, l.conn) // that it may fail is the point
			cancel()
			if took := time.Since(start); took > time.Second {
				return saw("a call that was given up returned after %s", took).want("it to return at once")
			}
		}
		return l.read(ctx)
	})
}

// unchanged warms the process up, and fails when fn made it grow for good.
func (l *lasting) unchanged(ctx context.Context, fn func() error) error {
	if err := l.calls(ctx, manyCalls/10); err != nil {
		return err
	}
	time.Sleep(settleTime / 10)
	before, err := measure(l.process.PID())
	if err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	after, err := settled(l.process.PID(), before)
	if err == nil && after.grown(before) {
		return saw("afterwards it has %s", after).want("about what it had before: %s", before)
	}
	return err
}

// settled measures a process until it has not grown, for a while.
func settled(pid int, before usage) (usage, error) {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(settleTime / 20) {
		after, err := measure(pid)
		if err != nil || !after.grown(before) || time.Now().After(deadline) {
			return after, err
		}
	}
}

func (l *lasting) stopped(ctx context.Context) error {
	pid := l.process.PID()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGCONT) }()
	for range 100 { // each thread stops when it hears of it
		if standsStill(pid) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := wantClass("a call while the process stands still", readCall(short, l.Kind, l.conn), fault.Timeout); err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		return fmt.Errorf("continue process %d: %w", pid, err)
	}
	if err := l.read(ctx); err != nil {
		return fmt.Errorf("a call after the pause: %w", err)
	}
	return nil
}

// tools names the programs that the plugin runs.
func (l *lasting) tools(ctx context.Context) ([]string, error) {
	info, err := plugin.NewClient(l.conn).Info(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("get info: %w", err)
	}
	var out []string
	for _, t := range info.Tools {
		out = append(out, t.Name)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: a plugin that runs other programs", ErrSkipped)
	}
	return out, nil
}

func (l *lasting) toolMissing(ctx context.Context) error {
	names, err := l.tools(ctx)
	if err != nil {
		return err
	}
	search, done, err := without(names)
	if err != nil {
		return err
	}
	defer done()
	s := &subject{Binary: l.Binary}
	s.search = search
	if err := s.up(ctx); err != nil {
		return err
	}
	defer s.end()
	info, err := s.base().Info(ctx, "")
	if err != nil {
		return fmt.Errorf("get info: %w", err)
	}
	for _, t := range info.Tools {
		if t.Path != "" {
			return saw("%s is found at %s, which is not in PATH", t.Name, t.Path).want("found_path to be empty")
		}
	}
	if _, err := s.configure(ctx, s.conn); err != nil {
		return classified("configure without its tools", err)
	}
	if _, err := s.asked(ctx); err != nil {
		return err
	}
	return classified("a call without its tools", s.read(ctx))
}

// classified is nil when a failure says more than that something is wrong.
func classified(what string, err error) error {
	if errors.Is(err, fault.Internal) || err != nil && fault.ClassOf(err) == fault.Internal {
		return saw("%s: %v (class internal)", what, err).want("success, or an error whose class tells what kind of failure it is")
	}
	return nil
}

func (l *lasting) toolHangs(ctx context.Context) error {
	names, err := l.tools(ctx)
	if err != nil {
		return err
	}
	hung, err := hanging(names)
	if err != nil {
		return err
	}
	defer hung.done()
	s := &subject{Binary: l.Binary}
	s.search = hung.search
	if err := s.up(ctx); err != nil {
		return err
	}
	defer s.end()
	start := time.Now()
	if _, err := s.base().Info(ctx, ""); err != nil {
		return fmt.Errorf("get info: %w", err)
	}
	if took := time.Since(start); took > answerLimit {
		return saw("get info took %s", took.Round(time.Millisecond)).want("%s at most", answerLimit)
	}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	start = time.Now()
	if _, err := s.configure(short, s.conn); err == nil {
		if _, err := s.asked(ctx); err != nil {
			return err
		}
		start = time.Now()
		read, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		s.readAll(read)
	}
	if took := time.Since(start); took > 5*time.Second {
		return saw("a call with a deadline of 3 seconds took %s", took).want("3 seconds")
	}
	return hung.ended()
}
