package vm_test

import (
	"context"
	"io"
	"os/exec"
	"testing"

	"github.com/agentlab/agentlab/internal/e2e/unit"
	"github.com/agentlab/agentlab/internal/testkit"
)

// service is the guest as the tests of agentlabd.service want it: in it, and not
// on this machine, systemd is known to be PID 1.
func (l *lab) service(t *testing.T) unit.Guest {
	return unit.Guest{Run: func(ctx context.Context, line string, stdin io.Reader) testkit.Result {
		cmd := exec.CommandContext(ctx, testkit.Bin(t, "agentlab"), "--socket", l.Socket(), "ssh", "one", "--identity", l.key, "--", line)
		cmd.Stdin = stdin
		return testkit.Capture(cmd)
	}}
}
