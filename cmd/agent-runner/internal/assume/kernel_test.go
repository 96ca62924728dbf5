package assume

import (
	"bytes"
	"os"
	"testing"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

func TestAddEntropy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := addEntropy(layout.Layout{Root: "/"}, bytes.Repeat([]byte{1}, 64)); err != nil {
		t.Error(err)
	}
	l := layout.Layout{Root: t.TempDir()}
	put(t, l.At(randomDevice), "")
	if err := addEntropy(l, []byte{1}); err == nil {
		t.Error("a file was taken for the random pool")
	}
}
