package record

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Only what a spare's folder can be is taken for one, and what a write that was cut short
// has left goes.
func TestLostSpares(t *testing.T) {
	s := openStore(t)
	ctx := context.Background()
	held, err := s.ClaimSpare(ctx, Spare{UID: 70, Mark: "held"})
	if err != nil {
		t.Fatal(err)
	}
	lost, err := s.ClaimSpare(ctx, Spare{UID: 71, Mark: "lost"})
	if err != nil {
		t.Fatal(err)
	}
	lost.Close()
	if _, err := s.ClaimSpare(ctx, Spare{UID: 71}); !errors.Is(err, fault.Exists) {
		t.Errorf("claim: %v, want exists", err)
	}
	if err := s.NoteFormer(ctx, 7, Spare{UID: 72}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"backup", "071", "4294967296"} {
		if err := os.Mkdir(filepath.Join(s.spares, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cut := filepath.Join(s.spares, ".tmp-1")
	if err := os.WriteFile(cut, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := s.LostSpares(ctx)
	if err != nil || len(got) != 1 || got[0].Note.Mark != "lost" {
		t.Errorf("lost: %+v, %v", got, err)
	}
	for _, d := range got {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(cut); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half-written note: %v, want none", err)
	}
	if users, err := s.SpareUsers(); err != nil || len(users) != 1 || users[0] != 70 {
		t.Errorf("users: %v, %v", users, err)
	}
	if n, err := s.Former(7); err != nil || n == nil || n.UID != 72 {
		t.Errorf("note of a former spare: %+v, %v", n, err)
	}
	if err := held.Remove(); err != nil {
		t.Error(err)
	}
}
