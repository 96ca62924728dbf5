package pluginhost

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	// waitForReady is how long a call waits for a plugin that is coming up.
	waitForReady = 15 * time.Second
	// stopTimeout bounds the end of one process.
	stopTimeout = 20 * time.Second
	// lastWords bounds waiting for the report about a process that a call lost.
	lastWords = time.Second
)

// instance keeps one plugin running.
type instance struct {
	cfg        *Config
	kind, name string
	log        hclog.Logger
	starter    starter

	requests chan *request // to run: take this process in place of yours
	kick     chan struct{} // to run: look at the health now
	leaves   chan struct{} // closed when it is to stop though the host goes on
	ended    chan struct{} // closed when run has ended, and all its processes
	retiring sync.WaitGroup
	tally    tally

	// Of run alone.
	pace    pace
	records records
	stuck   *upProcess // did not end though another was to take its place

	mu sync.Mutex
	// mu guards:
	block   Block
	status  Status
	info    plugin.Info   // as it said last
	schema  plugin.Schema // the same
	grant   launch.Grant  // that process had
	crashes []Crash       // newest first
	binary  os.FileInfo   // that was started last
	current *upProcess    // nil unless calls may be sent
	held    bool          // current is nil until its successor has been tried
	cause   error         // why current is nil, once it came up or failed
	tried   bool          // the first start has ended, well or badly
	changed chan struct{} // closed and replaced at every change
}

func newInstance(cfg *Config, b Block, log hclog.Logger) *instance {
	i := &instance{
		cfg: cfg, kind: b.Kind, name: b.Name, log: log, starter: processes{}, block: b,
		requests: make(chan *request), kick: make(chan struct{}, 1), changed: make(chan struct{}),
		leaves: make(chan struct{}), ended: make(chan struct{}),
		status: Status{Kind: b.Kind, Name: b.Name, State: Stopped, Since: time.Now(), Path: cfg.pathOf(b)},
	}
	if cfg.StateDir != "" {
		i.records.dir = filepath.Join(cfg.StateDir, crashesDir, b.Kind+"-"+b.Name)
	}
	return i
}

func (i *instance) label() string { return i.kind + " " + i.name }

func (i *instance) hasEnded() bool {
	select {
	case <-i.ended:
		return true
	default:
		return false
	}
}

// run keeps a process up until ctx ends. up is the first, or nil.
func (i *instance) run(ctx context.Context, up *upProcess) error {
	defer i.retiring.Wait()
	i.remember()
	if up != nil {
		i.serve(up)
	}
	for ctx.Err() == nil {
		var err error
		if up == nil {
			up, err = i.bringUp(ctx)
		}
		if err == nil && up != nil {
			up, err = i.watch(ctx, up)
		}
		if ctx.Err() == nil && err != nil {
			up = i.rest(ctx, i.down(err))
		}
	}
	return i.stop(ctx, up)
}

// remember reads the crash reports of earlier daemons.
func (i *instance) remember() {
	if i.records.dir == "" {
		return
	}
	if err := i.records.load(); err != nil {
		i.log.Warn("crash reports cannot be read", "plugin", i.label(), "err", err)
	}
	i.change(func() { i.crashes = i.records.list })
}

// bringUp starts a process, configures it and lets it serve. The error is a downfall.
func (i *instance) bringUp(ctx context.Context) (*upProcess, error) {
	began := time.Now()
	i.become(Starting, "")
	block := i.blockNow()
	i.change(func() { i.held, i.binary = false, statBinary(i.cfg.pathOf(block)) })
	if err := i.vacate(ctx, nil); err != nil {
		return nil, i.startFailed(block, nil, began, err)
	}
	up, err := i.starter.prepare(ctx, i, block)
	if err != nil {
		return nil, i.startFailed(block, up, began, err)
	}
	i.learn(up)
	if err := i.starter.configure(ctx, i, up); err != nil {
		up.died = up.endedSoon(err)
		up.abandon(ctx, i)
		return nil, i.startFailed(block, up, began, err)
	}
	i.serve(up)
	return up, nil
}

// rest waits until the plugin may be started again, or takes over a process
// that somebody started meanwhile.
func (i *instance) rest(ctx context.Context, v verdict) *upProcess {
	if v.state == Starting {
		return nil
	}
	var due <-chan time.Time
	if v.state != Failed {
		timer := time.NewTimer(v.pause)
		defer timer.Stop()
		due = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			return nil
		case r := <-i.requests:
			if up := i.replace(ctx, nil, r); up != nil {
				return up
			}
		}
	}
}

// down takes note of a downfall and says what is next.
func (i *instance) down(err error) verdict {
	f := asDownfall(err)
	now := time.Now()
	v := i.pace.fell(now, f.how, f.lasted, rand.Float64())
	reason := f.reason
	if v.why != "" {
		reason = v.why + ", the last: " + reason
	}
	fields := []any{"plugin", i.label(), "state", string(v.state), "reason", reason, "pause", brief(v.pause)}
	if f.crashID != "" {
		fields = append(fields, "crash", f.crashID)
	}
	if hint := fault.HintOf(f.err); hint != "" {
		fields = append(fields, "hint", hint)
	}
	i.log.Error("plugin is down", fields...)
	i.change(func() {
		i.current, i.cause, i.tried = nil, f, true
		i.enter(v.state)
		i.status.Reason, i.status.FailedAt, i.status.CrashID, i.status.PID = reason, now, f.crashID, 0
		i.status.NextStart = time.Time{}
		if v.state == Backoff || v.state == Quarantined {
			i.status.NextStart = now.Add(v.pause)
		}
	})
	i.tell(Turn{State: v.state, Reason: reason, CrashID: f.crashID})
	return v
}

func (i *instance) tell(t Turn) {
	if t.Kind, t.Name = i.kind, i.name; i.cfg.Tell != nil {
		i.cfg.Tell(t)
	}
}

// serve lets calls through to a process that is up.
func (i *instance) serve(up *upProcess) {
	up.since = time.Now()
	i.learn(up)
	again := false
	i.change(func() {
		if again = i.cause != nil || !i.status.StartedAt.IsZero(); !i.status.StartedAt.IsZero() {
			i.status.Restarts++
		}
		i.current, i.held, i.cause, i.tried, i.block, i.binary = up, false, nil, true, up.block, up.binary
		i.enter(Ready)
		i.status.Reason, i.status.NextStart = "", time.Time{}
		i.status.Version, i.status.Capabilities, i.status.Path = up.info.Version, up.capabilities, i.cfg.pathOf(up.block)
		i.status.PID, i.status.StartedAt = up.process.PID(), up.since
	})
	i.log.Info("plugin is ready", "plugin", i.label(), "version", up.info.Version, "pid", up.process.PID())
	if again {
		i.tell(Turn{State: Ready, Version: up.info.Version, PID: up.process.PID()})
	}
}

// become changes the state for a reason; a state that stays keeps its time.
func (i *instance) become(to State, reason string) {
	i.change(func() {
		i.enter(to)
		if to != Starting || reason != "" {
			i.status.Reason = reason
		}
		i.status.NextStart = time.Time{}
	})
}

// enter changes the state. Called with mu held.
func (i *instance) enter(to State) {
	if !mayFollow(i.status.State, to) {
		i.log.Error("plugin takes a step that is not foreseen", "plugin", i.label(), "from", string(i.status.State), "to", string(to))
	}
	if i.status.State != to {
		i.status.State, i.status.Since = to, time.Now()
	}
}

func (i *instance) change(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
	close(i.changed)
	i.changed = make(chan struct{})
}

func (i *instance) stop(ctx context.Context, up *upProcess) error {
	i.change(func() {
		i.current, i.cause, i.tried = nil, fault.New(fault.Unavailable, "plugin %s was stopped", i.label()), true
		i.enter(Stopped)
		i.status.Reason, i.status.PID, i.status.NextStart = "", 0, time.Time{}
	})
	if up == nil {
		return nil
	}
	return up.end(ctx)
}

func (i *instance) blockNow() Block {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.block
}

func (i *instance) snapshot() Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.status
}

// settled waits for the end of the first start.
func (i *instance) settled(ctx context.Context) error {
	for {
		i.mu.Lock()
		tried, cause, changed := i.tried, i.cause, i.changed
		i.mu.Unlock()
		if tried {
			return cause
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.New(fault.ClassOf(ctx.Err()), "wait for plugin %s: %w", i.label(), ctx.Err())
		}
	}
}
