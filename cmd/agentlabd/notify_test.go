package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/pluginhost"
)

func TestNotifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plugins := []pluginhost.Status{{Kind: "hypervisor", Name: "sim", State: pluginhost.Starting, Reason: "two\nlines"}}
		var said []string
		n := &notifier{
			watchdog: time.Minute, beats: make(chan struct{}, 1), ready: make(chan struct{}), log: hclog.NewNullLogger(),
			plugins: func() []pluginhost.Status { return plugins },
			send:    func(state string) error { said = append(said, strings.ReplaceAll(state, "\n", " | ")); return nil },
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.run(ctx) }()
		reloads := 0
		go func() { _ = n.after(ctx, func(context.Context) error { reloads++; return nil }) }()
		wait := func() { time.Sleep(time.Hour); synctest.Wait() } // nothing is said of itself
		wait()
		if reloads > 0 {
			t.Error("a reload came before ready")
		}
		plugins[0].State = pluginhost.Ready
		n.beat()
		wait()
		if reloads != 1 {
			t.Error("no reload after ready")
		}
		n.beat()
		wait()
		plugins[0].State = pluginhost.Backoff
		n.beat()
		wait()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for range 3 { // the scheduler does not wait for whoever takes them
			n.beat()
		}
		want := []string{
			"STATUS=starting; hypervisor sim starting",
			"READY=1 | WATCHDOG=1 | STATUS=serving; hypervisor sim ready",
			"WATCHDOG=1",
			"WATCHDOG=1 | STATUS=serving; hypervisor sim backoff",
			"STOPPING=1 | STATUS=stopping",
		}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Errorf("said (-want +got):\n%s", diff)
		}
	})
}
