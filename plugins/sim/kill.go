package main

import (
	"os"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
)

// deathWait is how long the daemon may take to die of SIGKILL.
const deathWait = 10 * time.Second

// killer ends processes as faults.json asks. The daemon is the process that
// configured this one and still is its parent: a later parent is a stranger.
func killer(daemon int) func(world.Target) error {
	return func(target world.Target) error {
		pid := os.Getpid()
		if target == world.Daemon {
			if pid = os.Getppid(); pid != daemon || pid <= 1 {
				return fault.New(fault.Internal, "the plugin has no daemon to kill")
			}
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fault.New(fault.Internal, "kill the %s: %w", target, err)
		}
		// No answer may leave before the target is gone; the plugin dies with
		// its daemon.
		time.Sleep(deathWait)
		return fault.New(fault.Internal, "the %s did not die", target)
	}
}
