package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

func open(t *testing.T) (*Store, string) {
	t.Helper()
	state := t.TempDir()
	s, err := Open(state)
	if err != nil {
		t.Fatal(err)
	}
	return s, filepath.Join(state, "volumes")
}

func claim(t *testing.T, s *Store, owner string, to *Attachment) *Volume {
	t.Helper()
	v := &Volume{ID: ID(owner), Owner: owner, State: StateReady, Bytes: 1 << 20, Attached: to}
	if err := s.Claim(v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRecordComesBackWhole(t *testing.T) {
	s, _ := open(t)
	v := claim(t, s, "a", nil)
	v.Attached = &Attachment{VMID: 7, Owner: "vm", Serial: "work"}
	v.Snapshots = record.Snapshots{{Name: "one", State: record.SnapshotReady, Created: time.Unix(5, 0).UTC()}}
	if err := s.Save(v); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load(v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, got); diff != "" {
		t.Error(diff)
	}
	if err := s.Claim(&Volume{ID: v.ID, Owner: "b"}); !errors.Is(err, fault.Exists) {
		t.Errorf("claim of what is there: %v, want exists", err)
	}
	for range 2 {
		if err := s.Remove(v.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Load(v.ID); !errors.Is(err, fault.NotFound) {
		t.Errorf("load of what is gone: %v, want not found", err)
	}
}

// What cannot be read is nobody's, is not gone, and stops nobody else.
func TestDamagedRecord(t *testing.T) {
	s, root := open(t)
	vm := &Attachment{VMID: 7, Owner: "vm", Serial: "work"}
	whole, broken := claim(t, s, "a", vm), claim(t, s, "b", vm)
	claim(t, s, "c", &Attachment{VMID: 7, Owner: "another"})
	path := filepath.Join(root, broken.ID, recordName)
	for name, damage := range map[string]func() error{
		"half":    func() error { return os.WriteFile(path, []byte(`{"format":1,"id"`), 0o600) },
		"another": func() error { return os.WriteFile(path, []byte(`{"format":1,"id":"x","owner":"b"}`), 0o600) },
		"newer": func() error {
			return os.WriteFile(path, []byte(`{"format":2,"id":"`+broken.ID+`","owner":"b"}`), 0o600)
		},
		"missing": func() error { return os.Remove(path) },
		"link":    func() error { return os.Symlink("/etc/passwd", path) },
	} {
		if name != "link" {
			_ = os.WriteFile(path, nil, 0o600)
		} else {
			_ = os.Remove(path)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(broken.ID); !errors.Is(err, ErrUnreadable) || errors.Is(err, fault.NotFound) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v, want unreadable", name, err)
		}
		of, err := s.Of(7, "vm")
		if err != nil || len(of) != 1 || of[0].ID != whole.ID {
			t.Errorf("%s: volumes of the vm are %v, %v, want the whole one", name, of, err)
		}
		_ = os.Remove(path)
	}
	for _, id := range []string{"", "..", "../vms", "x", ID("nobody")} {
		if _, err := s.Load(id); !errors.Is(err, fault.NotFound) {
			t.Errorf("load of %q: %v, want not found", id, err)
		}
	}
}

func TestSweepLeavesVolumes(t *testing.T) {
	s, root := open(t)
	v := claim(t, s, "a", nil)
	for _, name := range []string{newPrefix + "1", gonePrefix + v.ID} {
		if err := os.MkdirAll(filepath.Join(root, name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) != 1 || left[0].Name() != v.ID {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestLocks(t *testing.T) {
	s, _ := open(t)
	a, b := ID("a"), ID("b")
	unlock, err := s.Lock(t.Context(), a, b, a)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(short, b); !errors.Is(err, fault.Locked) {
		t.Errorf("lock of what is held: %v, want locked", err)
	}
	other, err := s.Lock(t.Context(), ID("c"))
	if err != nil {
		t.Error(err)
	}
	other()
	unlock()
	if unlock, err = s.Lock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	unlock()
}
