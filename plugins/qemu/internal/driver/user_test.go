package driver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestNoAccountMayBecomeTheUserOfAVM(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(file, []byte("# comment\nann:100000:65536\nbroken\nbob:165536:65536\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := delegations
	t.Cleanup(func() { delegations = old })
	delegations = []string{filepath.Join(t.TempDir(), "missing"), file}
	for base, taken := range map[uint32]bool{98_999: false, 99_000: true, 200_000: true, 230_071: true, 230_072: false} {
		d := &Driver{cfg: Config{UIDBase: base}, find: procfs.Find}
		if err := d.unusedUser(1000); errors.Is(err, fault.Precondition) != taken || err != nil && !taken {
			t.Errorf("uid %d: %v", d.uid(1000), err)
		}
	}
	delegations = []string{t.TempDir()}
	if err := (&Driver{cfg: Config{UIDBase: 98_999}}).unusedUser(1000); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}
