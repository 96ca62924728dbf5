package settle

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/fault"
)

// OpenSSH since 9.8 hands its host key on.
func TestSSHDThatKeepsItsKey(t *testing.T) {
	for _, path := range sessionPrograms {
		l := layout.Layout{Root: t.TempDir()}
		if err := readsHostKey(l); err != nil {
			t.Error(err)
		}
		put(t, l.At(path), "", 0o755)
		err := Run(context.Background(), l, hclog.NewNullLogger(), nil)
		if !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
			t.Errorf("with %s: %v", path, err)
		}
	}
}
