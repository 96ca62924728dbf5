package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	firstPause  = 500 * time.Millisecond
	lastPause   = 30 * time.Second
	steadyAfter = time.Minute // a process that ran this long resets the pause
	// waitForReady is how long a call waits for a plugin that is coming up.
	waitForReady   = 15 * time.Second
	healthInterval = 10 * time.Second
	// unwellInterval is for a degraded plugin, so that its recovery is seen soon.
	unwellInterval = time.Second
	healthTimeout  = 2 * time.Second
	// stopTimeout bounds the end of one plugin.
	stopTimeout = 20 * time.Second
)

// instance keeps one plugin running.
type instance struct {
	cfg   *Config
	block Block
	path  string
	log   hclog.Logger

	mu sync.Mutex
	// mu guards:
	status  Status
	info    plugin.Info     // as it said last
	schema  plugin.Schema   // the same
	process *launch.Process // nil unless calls may be sent
	cause   error           // why process is nil
	tried   bool            // the first start has ended, well or badly
	changed chan struct{}   // closed and replaced at every change
}

func newInstance(cfg *Config, b Block, log hclog.Logger) *instance {
	path := b.Path
	if path == "" {
		path = filepath.Join(cfg.PluginDir, plugin.BinaryPrefix+b.Name)
	}
	return &instance{
		cfg: cfg, block: b, path: path, log: log, changed: make(chan struct{}),
		status: Status{Kind: b.Kind, Name: b.Name, State: Stopped, Path: path},
	}
}

func (i *instance) label() string { return i.block.Kind + " " + i.block.Name }

// run starts the process, and again whenever it ends, until ctx ends.
func (i *instance) run(ctx context.Context) error {
	pause := firstPause
	for {
		i.update(func(s *Status) { s.State, s.Message = Starting, "" })
		began := time.Now()
		up, err := bringUp(ctx, i)
		if err == nil {
			i.serve(up)
			err = i.watch(ctx, up)
		}
		if ctx.Err() != nil {
			return i.stop(ctx, up)
		}
		if time.Since(began) >= steadyAfter {
			pause = firstPause
		}
		state := Backoff
		if wrong := (*ConfigError)(nil); errors.As(err, &wrong) {
			state = Failed // only another configuration helps
		}
		i.down(state, err)
		i.log.Error("plugin is down", "plugin", i.label(), "state", string(state), "err", err, "hint", fault.HintOf(err))
		if state == Failed {
			<-ctx.Done()
			return i.stop(ctx, nil)
		}
		select {
		case <-ctx.Done():
			return i.stop(ctx, nil)
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
		i.update(func(s *Status) { s.Restarts++ })
	}
}

// serve lets calls through to a process that is up.
func (i *instance) serve(up *upProcess) {
	i.mu.Lock()
	i.process, i.cause, i.tried = up.process, nil, true
	i.mu.Unlock()
	i.update(func(s *Status) {
		s.State, s.Version, s.Capabilities = Ready, up.info.Version, up.capabilities
		s.PID, s.StartedAt = up.process.PID(), time.Now()
	})
	i.log.Info("plugin is ready", "plugin", i.label(), "version", up.info.Version, "pid", up.process.PID())
}

// watch follows the plugin's health until its process ends or ctx does.
func (i *instance) watch(ctx context.Context, up *upProcess) error {
	for {
		pause := healthInterval
		if i.check(ctx, up.base) != Ready {
			pause = unwellInterval
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-up.process.Done():
			exit := up.process.Exit()
			return &fault.Error{
				Class:   fault.Unavailable,
				Message: fmt.Sprintf("plugin %s ended by itself with %s", i.label(), exit),
				Stderr:  exit.Output,
			}
		case <-time.After(pause):
		}
	}
}

func (i *instance) check(ctx context.Context, base plugin.Base) State {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h, err := base.Health(ctx)
	state, message := Ready, ""
	switch {
	case err != nil:
		state, message = Degraded, "it does not answer: "+err.Error()
	case h.State != plugin.Ready:
		state, message = Degraded, h.Message
	}
	i.update(func(s *Status) { s.State, s.Message = state, message })
	return state
}

func (i *instance) stop(ctx context.Context, up *upProcess) error {
	i.down(Stopped, fault.New(fault.Unavailable, "plugin %s was stopped", i.label()))
	if up == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return up.process.Stop(ctx)
}

func (i *instance) down(state State, cause error) {
	i.mu.Lock()
	i.process, i.cause, i.tried = nil, cause, true
	i.mu.Unlock()
	i.update(func(s *Status) { s.State, s.Message, s.PID = state, cause.Error(), 0 })
}

func (i *instance) update(change func(*Status)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(&i.status)
	close(i.changed)
	i.changed = make(chan struct{})
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
			return fmt.Errorf("wait for plugin %s: %w", i.label(), ctx.Err())
		}
	}
}

// await gives the process that calls go to. It waits a while for one that is
// starting.
func (i *instance) await(ctx context.Context) (*launch.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, waitForReady)
	defer cancel()
	for {
		i.mu.Lock()
		process, cause, changed, state := i.process, i.cause, i.changed, i.status.State
		i.mu.Unlock()
		switch {
		case process != nil && !ended(process):
			return process, nil
		case state == Failed, state == Stopped && cause != nil:
			return nil, i.unavailable(state, cause)
		}
		if process != nil { // run will notice its end in a moment
			cause = fault.New(fault.Unavailable, "its process ended with %s", process.Exit())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, i.unavailable(state, cause)
		}
	}
}

func (i *instance) unavailable(state State, cause error) error {
	e := fault.New(fault.Unavailable, "plugin %s is not available (%s)", i.label(), state)
	if cause != nil {
		e = fault.New(fault.Unavailable, "plugin %s is not available (%s): %w", i.label(), state, cause)
	}
	return e.WithResource("plugin %s", i.label())
}

func ended(p *launch.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}
