package rehearse

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/assume"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/rootexec"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

// timeout bounds all of a rehearsal.
const timeout = time.Minute

// Serve makes a guest known to its host and lives with that until ctx ends.
type Serve func(ctx context.Context, l layout.Layout, log hclog.Logger) error

// Config is what Run works on.
type Config struct {
	Layout  layout.Layout
	Entropy []byte // of this copy only
	Serve   Serve
	SSHD    string // its address; "" leaves it out
}

// Run leaves nothing that is of anybody, and no program. What fails in it would
// fail later.
func Run(ctx context.Context, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	h, err := newHost()
	if err != nil {
		return err
	}
	defer h.close()
	err = assume.RehearseInEarnest(ctx, c.Layout, assume.Earnest{
		Entropy: c.Entropy, Controller: h.url(),
		Then: func(there layout.Layout) error {
			if err := h.meet(ctx, there, c.Serve); err != nil {
				return err
			}
			return programs(ctx, c.Layout)
		},
	})
	if err == nil && c.SSHD != "" {
		err = login(ctx, c.Layout, c.SSHD)
	}
	// The next collection is far, and not the first.
	runtime.GC()
	return err
}

// programs runs some as the host's first command will be: asked for over a channel.
func programs(ctx context.Context, l layout.Layout) error {
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- channel.Serve(ctx, there, guest{layout: l}) }()
	h := channel.New(here)
	defer func() {
		_ = h.Close()
		<-served
	}()
	for _, argv := range [][]string{{"/bin/true"}, {"/bin/echo", "rehearsal"}, {"/bin/sh", "-c", "echo rehearsal"}} {
		code, err := h.Exec(ctx, channel.Exec{Argv: argv}, nil, io.Discard, io.Discard)
		if err == nil && code != 0 {
			err = fault.New(fault.Precondition, "%s exits with %d", argv[0], code)
		}
		if err != nil {
			return fmt.Errorf("rehearse a program: %w", err)
		}
	}
	return nil
}

// guest runs programs for a channel, and no more is asked of it.
type guest struct {
	channel.Handler
	layout layout.Layout
}

func (g guest) Exec(ctx context.Context, e channel.Exec, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	return rootexec.Run(ctx, g.layout, e, stdin, stdout, stderr)
}
