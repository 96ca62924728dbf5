package main

import (
	"context"
	"runtime"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/hostcalls"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// run answers the host over the VM's serial port, and serves this sandbox as
// soon as there is one: a guest that is to become a memory template waits until
// a copy of it gets an identity.
func run(ctx context.Context, l layout.Layout, log hclog.Logger) error {
	// One thread at a time is enough, and waking another processor is dear in an
	// emulated guest.
	runtime.GOMAXPROCS(1)
	guest := hostcalls.New(l, log.Named("host"), serve)
	answering, stop := context.WithCancel(ctx)
	var answers sync.WaitGroup
	defer answers.Wait()
	defer stop()
	answers.Go(func() { guest.Serve(answering) })
	if err := guest.AwaitIdentity(ctx); err != nil {
		return ended(ctx, err)
	}
	return serve(ctx, l, log)
}
