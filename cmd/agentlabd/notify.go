package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/pluginhost"
)

// notifier tells systemd how the daemon stands. Where nobody listens it does
// nothing. Keepalives come from the scheduler alone, so one that hangs, or
// whose store does not answer, is started anew; it never waits for systemd.
type notifier struct {
	watchdog time.Duration // systemd's patience; 0 when it does not watch
	beats    chan struct{}
	ready    chan struct{} // closed when the daemon is
	plugins  func() []pluginhost.Status
	send     func(state string) error
	log      hclog.Logger
}

func newNotifier(plugins func() []pluginhost.Status, log hclog.Logger) *notifier {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is left alone", "err", err)
	}
	return &notifier{
		watchdog: watchdog, beats: make(chan struct{}, 1), ready: make(chan struct{}), plugins: plugins, log: log,
		send: func(state string) error {
			_, err := daemon.SdNotify(false, state)
			return err
		},
	}
}

// within is how far apart beats may be.
func (n *notifier) within() time.Duration { return n.watchdog / 2 }

// beat takes note that the scheduler lives. It does not wait.
func (n *notifier) beat() {
	select {
	case n.beats <- struct{}{}:
	default:
	}
}

// run passes beats on until ctx ends. The first says that the daemon is ready:
// its sockets were bound before the scheduler began.
func (n *notifier) run(ctx context.Context) error {
	said := n.status("starting")
	n.tell("STATUS=" + said)
	starting := true
	for {
		select {
		case <-ctx.Done():
			n.tell(daemon.SdNotifyStopping, "STATUS=stopping")
			return nil
		case <-n.beats:
		}
		var lines []string
		if starting {
			lines = append(lines, daemon.SdNotifyReady)
			starting = false
			close(n.ready)
		}
		if n.watchdog > 0 {
			lines = append(lines, daemon.SdNotifyWatchdog)
		}
		if now := n.status("serving"); now != said {
			lines = append(lines, "STATUS="+now)
			said = now
		}
		if len(lines) > 0 {
			n.tell(lines...)
		}
	}
}

// after runs f once the daemon is ready, unless ctx ends before: whoever says
// ready after a reload must not be the first to say it.
func (n *notifier) after(ctx context.Context, f func(context.Context) error) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.ready:
		return f(ctx)
	}
}

// status is one line for systemctl status; agentlab status says more.
func (n *notifier) status(doing string) string {
	var out []string
	for _, p := range n.plugins() {
		out = append(out, fmt.Sprintf("%s %s %s", p.Kind, p.Name, p.State))
	}
	if len(out) == 0 {
		return doing + "; no plugin is configured"
	}
	return doing + "; " + strings.Join(out, ", ")
}

func (n *notifier) tell(lines ...string) {
	if err := n.send(strings.Join(lines, "\n")); err != nil {
		n.log.Warn("systemd was not told", "state", lines[0], "err", err)
	}
}
