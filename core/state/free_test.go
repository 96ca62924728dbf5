package state

import (
	"errors"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestCheckFreeSaysHowToWait(t *testing.T) {
	open := []lab.Operation{{ID: "op_1"}}
	for state, hint := range map[lab.SandboxState]string{
		lab.SandboxRequested: "still starting", lab.SandboxBooting: "still starting", lab.SandboxProvisioning: "still starting",
		lab.SandboxReady: "in which nothing runs", lab.SandboxStopped: "in which nothing runs",
	} {
		err := CheckFree(lab.Sandbox{Name: "fox", State: state}, open)
		if !errors.Is(err, fault.Precondition) || !strings.Contains(fault.HintOf(err), hint) {
			t.Errorf("%s: %v (hint %q), want a hint with %q", state, err, fault.HintOf(err), hint)
		}
	}
}
