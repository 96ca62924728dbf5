package driver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
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
	store, err := record.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	frozen, err := memory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for base, taken := range map[uint32]bool{98_999: false, 99_000: true, 200_000: true, 230_071: true, 230_072: false} {
		d := &Driver{cfg: Config{UIDBase: base}, find: procfs.Find, store: store, memory: frozen}
		if err := d.unusedUser(1000); errors.Is(err, fault.Precondition) != taken || err != nil && !taken {
			t.Errorf("uid %d: %v", d.uid(1000), err)
		}
	}
	delegations = []string{t.TempDir()}
	if err := (&Driver{cfg: Config{UIDBase: 98_999}, memory: frozen}).unusedUser(1000); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

// After uid_base was changed, a new VM's number may lead to an older VM's user.
func TestUserOfAnotherVMIsNotGiven(t *testing.T) {
	store, err := record.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	frozen, err := memory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const base = 3_500_000
	if err := store.Claim(&record.VM{VMID: 1500, Owner: testOwner, UID: base + 1001}); err != nil {
		t.Fatal(err)
	}
	d := &Driver{cfg: Config{UIDBase: base}, find: procfs.Find, store: store, memory: frozen}
	check := func(what string) {
		t.Helper()
		if err := d.unusedUser(1001); !errors.Is(err, fault.Exists) || fault.HintOf(err) == "" {
			t.Errorf("%s: user of vm 1500: %v, want exists", what, err)
		}
		if err := d.unusedUser(1002); err != nil {
			t.Errorf("%s: a user of its own: %v", what, err)
		}
	}
	check("by its record")
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	disk := store.Path(1500, diskName)
	err = errors.Join(
		os.WriteFile(disk, nil, 0o600), os.Chown(disk, base+1001, base+1001),
		os.WriteFile(store.Path(1500, "vm.json"), []byte("{"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	check("by its files")
}

// A VM that was half-made under another uid_base gets its user anew.
func TestHalfMadeVMGetsAnUnusedUser(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	err := d.store.Claim(&record.VM{VMID: testVMID, Owner: testOwner, UID: l.config.UIDBase + 1, State: record.StateCreating})
	if err != nil {
		t.Fatal(err)
	}
	l.start(testhost.Program{Args: []string{"sleep", "600"}})
	if _, err := d.CreateVM(testContext(t), testRequest(), nil); !errors.Is(err, fault.Exists) {
		t.Errorf("create: %v, want exists", err)
	}
}
