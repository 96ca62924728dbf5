package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/check"
	"github.com/agentlab/agentlab/core/guest"
	"github.com/agentlab/agentlab/core/lab"
)

// askTimeout bounds how long a reload waits for plugins whose blocks changed.
const askTimeout = 30 * time.Second

// swapTimeout bounds how long a reload waits for the processes that replace
// those of changed blocks.
const swapTimeout = 2 * time.Minute

// settings is the configuration in force. It is replaced whole, so whoever
// reads it once has parts that fit together.
type settings struct{ cfg atomic.Pointer[config.Config] }

func (s *settings) now() *config.Config { return s.cfg.Load() }

// reloader reads the configuration anew when it is told to.
type reloader struct {
	settings settings
	started  *config.Config // what only a restart changes is as in this one
	hangups  <-chan os.Signal
	log      hclog.Logger
	store    interface {
		AppendEvent(ctx context.Context, e lab.Event) error
	}
	apply func(*config.Config) // hands on what is not read from settings
	// plugins replaces the processes whose block or binary is another, and names
	// them; on an error nothing is replaced but those.
	plugins func(context.Context, *config.Config) ([]string, hcl.Diagnostics)

	mu sync.Mutex
	// mu guards:
	rejected []string // what was wrong with the file at the last reload
	since    time.Time
	restart  []string // keys whose change needs one
}

func newReloader(cfg *config.Config, hangups <-chan os.Signal, log hclog.Logger) *reloader {
	r := &reloader{started: cfg, hangups: hangups, log: log.Named("config")}
	r.settings.cfg.Store(cfg)
	return r
}

// catchHangups keeps SIGHUP from ending the process, from its first moments on.
// Several that come while one is worked on are one.
func catchHangups() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGHUP)
	return c, func() { signal.Stop(c) }
}

func (r *reloader) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.hangups:
			r.reload(ctx)
		}
	}
}

// reload takes the file over, or leaves everything as it is and says why.
func (r *reloader) reload(ctx context.Context) {
	notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	next, diags := r.read(ctx)
	var event lab.Event
	var status string
	var replaced []string
	if !diags.HasErrors() {
		replaced, diags = r.swap(ctx, next, diags)
	}
	if diags.HasErrors() {
		event, status = r.reject(diags, replaced)
	} else {
		event, status = r.accept(next, replaced, diags)
	}
	if err := r.store.AppendEvent(ctx, event); err != nil {
		r.log.Error("writing an event", "err", err)
	}
	notify(daemon.SdNotifyReady + "\nSTATUS=" + status)
}

// read gives the new configuration with all that is wrong with it. Plugins whose
// blocks are as they were run already, so only others are asked.
func (r *reloader) read(ctx context.Context) (*config.Config, config.Diagnostics) {
	next, diags := config.Load(r.started.File)
	if next == nil {
		return nil, diags
	}
	diags = append(diags, check.Reload(next)...)
	if changed := config.NewPlugins(r.settings.now(), next); len(changed) > 0 {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		diags = append(diags, check.Plugins(ctx, next, changed)...)
	}
	return next, diags
}

// swap replaces the processes of plugins.
func (r *reloader) swap(ctx context.Context, next *config.Config, diags config.Diagnostics) ([]string, config.Diagnostics) {
	now, _ := config.TakeOver(r.started, next)
	ctx, cancel := context.WithTimeout(ctx, swapTimeout)
	defer cancel()
	replaced, wrong := r.plugins(ctx, now)
	return replaced, append(diags, wrong...)
}

// reject leaves the old configuration in force, but for the plugins that were
// replaced before it failed.
func (r *reloader) reject(diags config.Diagnostics, replaced []string) (lab.Event, string) {
	var wrong []string
	for _, p := range diags.Problems() {
		if p.Severity == "error" {
			wrong = append(wrong, p.String())
		}
	}
	first, _, _ := strings.Cut(wrong[0], "\n")
	fields := map[string]string{"error": strings.Join(wrong, "\n")}
	what := "the configuration is not taken over; the old one stays"
	but := ""
	if len(replaced) > 0 {
		fields["plugins"] = strings.Join(replaced, ", ")
		but = "plugins replaced nevertheless: " + fields["plugins"]
		what += ", but for plugins: " + fields["plugins"]
	}
	r.log.Error(what, "err", fields["error"])
	r.mu.Lock()
	r.rejected, r.since = wrong, time.Now()
	if but != "" {
		r.rejected = append(slices.Clone(wrong), but)
		but = "; " + but
	}
	r.mu.Unlock()
	return lab.Event{
		Type: lab.EventConfigRejected, Message: "the configuration is not taken over: " + first + but, Fields: fields,
	}, "Configuration not taken over: " + first + but
}

func (r *reloader) accept(next *config.Config, replaced []string, diags config.Diagnostics) (lab.Event, string) {
	for _, w := range diags.Warnings() {
		r.log.Warn("configuration", "err", w)
	}
	now, restart := config.TakeOver(r.started, next)
	r.settings.cfg.Store(now)
	r.apply(now)
	r.mu.Lock()
	r.rejected, r.restart = nil, restart
	r.mu.Unlock()
	event := lab.Event{Type: lab.EventConfigReloaded, Message: "the configuration is taken over", Fields: map[string]string{}}
	if len(replaced) > 0 {
		event.Fields["plugins"] = strings.Join(replaced, ", ")
		event.Message += "; plugins replaced: " + event.Fields["plugins"]
	}
	if len(restart) == 0 {
		r.log.Info("configuration reloaded", "plugins", event.Fields["plugins"])
		return event, "Configuration reloaded."
	}
	keys := strings.Join(restart, ", ")
	r.log.Warn("configuration reloaded but for what needs a restart", "err", needsRestart+keys)
	event.Message += "; " + needsRestart + keys
	event.Fields["restart"] = keys
	return event, "Needs a restart: " + keys
}

const needsRestart = "needs a restart: "

// problems is what agentlab status says of the configuration.
func (r *reloader) problems() []string {
	var out []string
	for _, f := range r.findings() {
		out = append(out, f.Message)
	}
	return out
}

// findings are warnings: the daemon runs with what it had, and its next start may not.
func (r *reloader) findings() []api.Finding {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []api.Finding
	warn := func(fix, text string) {
		out = append(out, api.Finding{Source: "configuration", ID: "reload", Level: api.LevelWarning, Message: text, Fix: fix})
	}
	for _, text := range r.rejected {
		warn("correct it until agentlab config check is content, then have the daemon reload it",
			fmt.Sprintf("configuration not taken over at %s: %s", r.since.Format(time.TimeOnly), text))
	}
	for _, key := range r.restart {
		warn("restart the daemon when it suits; sandboxes go on running meanwhile", needsRestart+key)
	}
	return out
}

// notify tells systemd, where that started us.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

func guestLimits(cfg *config.Config) guest.Limits {
	return guest.Limits{LogBytes: cfg.LogMaxBytes, FileBytes: cfg.ArtifactMaxBytes, JobBytes: cfg.ArtifactQuotaBytes}
}
