package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
)

// downfall is why a plugin is not up any more, or did not come up.
type downfall struct {
	how     fall
	reason  string // one line, without times; a wrong configuration takes several
	crashID string // of the report, "" for none
	lasted  time.Duration
	err     error
}

// Error is the cause in full.
func (f *downfall) Error() string { return f.err.Error() }

func (f *downfall) Unwrap() error { return f.err }

func asDownfall(err error) *downfall {
	var f *downfall
	if errors.As(err, &f) {
		return f
	}
	return &downfall{how: refused, reason: oneLine(err.Error()), err: err}
}

const longestReason = 600 // bytes

func oneLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > longestReason {
		s = strings.ToValidUTF8(s[:longestReason], "") + "…"
	}
	return s
}

// startFailed judges a start by the block that failed; up is its process,
// which has ended, when it came to one that answered.
func (i *instance) startFailed(b Block, up *upProcess, began time.Time, err error) *downfall {
	f := i.judge(up, began, err)
	if f.how != wrong && b.Range.Filename != "" { // else it has places of its own
		f.reason = fmt.Sprintf("%s:%d: %s", b.Range.Filename, b.Range.Start.Line, f.reason)
	}
	return f
}

func (i *instance) judge(up *upProcess, began time.Time, err error) *downfall {
	f := &downfall{how: refused, reason: oneLine(err.Error()), err: err}
	if invalid := (*ConfigError)(nil); errors.As(err, &invalid) {
		f.how, f.reason = wrong, err.Error()
		return f
	}
	exit, died := launch.ExitOf(err)
	if up != nil && up.died {
		died, exit = true, up.process.Exit()
		f.reason = up.redact(exit.String()) + " while it came up"
	}
	if died {
		f.how = crashed
		f.crashID = i.report(up, f.reason, exit, time.Since(began))
	}
	return f
}

// endedSoon reports whether the process ended, and waits a moment for the news
// when the error may have come of that.
func (up *upProcess) endedSoon(err error) bool {
	if !errors.Is(err, fault.Unavailable) {
		return up.gone()
	}
	select {
	case <-up.process.Done():
		return true
	case <-time.After(200 * time.Millisecond):
		return false
	}
}

// fallen reports about a process that was up and ended.
func (i *instance) fallen(up *upProcess, reason string) *downfall {
	exit := up.process.Exit()
	lasted := max(time.Since(up.since), 1) // it did serve
	reason = up.redact(reason)
	f := &downfall{how: crashed, reason: reason, lasted: lasted}
	f.crashID = i.report(up, reason, exit, lasted)
	f.err = fault.New(fault.Unavailable, "plugin %s: %s", i.label(), reason)
	up.crashID, up.ending = f.crashID, reason
	close(up.reported)
	return f
}

// report keeps a crash report and gives its id. up may be nil.
func (i *instance) report(up *upProcess, reason string, exit launch.Exit, ran time.Duration) string {
	c := Crash{
		ID: lab.NewID(crashPrefix), Plugin: i.label(), At: time.Now(), Ran: ran, Reason: reason,
		Code: exit.Code, Signal: exit.Signal, Memory: exit.Memory, Output: tailOf(exit.Output),
	}
	if up != nil {
		c.Version, c.PID, c.Calls = up.info.Version, up.process.PID(), up.traffic.last()
		c.Output = up.redact(c.Output)
	}
	if err := i.records.add(c); err != nil {
		i.log.Warn("crash report is only in memory", "plugin", i.label(), "crash", c.ID, "err", err)
	}
	i.change(func() { i.crashes = i.records.list })
	return c.ID
}

// unavailable is the error of a call that cannot be sent. Called with mu held.
func (i *instance) unavailable() error {
	s := i.status
	e := &fault.Error{Class: fault.Unavailable, Resource: "plugin " + i.label(), Err: i.cause}
	e.Message = "plugin " + i.label() + " is " + string(s.State)
	switch text := s.Message(time.Now()); {
	case s.State == Stopped:
		e.Message = "plugin " + i.label() + " was stopped"
	case text != "":
		e.Message += ": " + text
	case s.State == Starting:
		e.Message = "plugin " + i.label() + " has been starting for " + brief(time.Since(s.Since))
	}
	if i.cause != nil {
		e.Hint = fault.HintOf(i.cause)
	}
	if s.CrashID != "" && s.Reason != "" && (s.State == Backoff || s.State == Quarantined || s.State == Starting) {
		e.Message += " (crash report " + s.CrashID + ")"
		e.Hint = "agentlab plugin info " + i.kind + " shows the crash report"
	}
	return e
}

// begin gives the process for one attempt of a call. It waits a while for one
// that is starting, and for one that takes another's place as long as the call
// may; when there is none it fails at once.
func (i *instance) begin(ctx context.Context, method string, n int) (*launch.Attempt, error) {
	up, record, err := i.await(ctx, method)
	if err != nil {
		return nil, err
	}
	var once sync.Once
	return &launch.Attempt{Process: up.line, End: func(err error, lost bool) error {
		once.Do(func() {
			i.tally.add(up.traffic.end(record, err, lost), n > 1)
			if err != nil && fault.ClassOf(err) == fault.Timeout {
				i.look()
			}
			if lost {
				err = i.withReport(up, err)
			}
		})
		return err
	}}, nil
}

// look has run look at the health now.
func (i *instance) look() {
	select {
	case i.kick <- struct{}{}:
	default:
	}
}

// withReport adds the crash report to the error of a call that was lost.
func (i *instance) withReport(up *upProcess, err error) error {
	if !up.gone() {
		return err
	}
	select {
	case <-up.reported:
	case <-time.After(lastWords):
		return err
	}
	var e *fault.Error
	if up.crashID == "" || !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Message = "plugin " + i.label() + " was lost during the call: " + up.ending + " (crash report " + up.crashID + ")"
	out.Hint = "agentlab plugin info " + i.kind + " shows the crash report"
	return &out
}

// await finds the process and takes note of the call in one step, so that a
// process that is being replaced knows of all calls that it gets.
func (i *instance) await(ctx context.Context, method string) (*upProcess, *CallRecord, error) {
	patience := time.NewTimer(waitForReady)
	defer patience.Stop()
	for {
		i.mu.Lock()
		up, held, changed := i.current, i.held, i.changed
		switch {
		case up != nil && !up.gone():
			defer i.mu.Unlock()
			return up, up.traffic.begin(ctx, method), nil
		case up == nil && (i.status.State != Starting && i.status.State != Stopped || i.status.State == Stopped && i.cause != nil):
			defer i.mu.Unlock()
			return nil, nil, i.unavailable()
		}
		i.mu.Unlock()
		over := patience.C
		if held {
			over = nil
		}
		select {
		case <-changed:
			if held {
				patience.Reset(waitForReady)
			}
			continue
		case <-over:
		case <-ctx.Done():
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		return nil, nil, i.unavailable()
	}
}
