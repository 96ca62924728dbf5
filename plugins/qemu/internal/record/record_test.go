package record

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/fault"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testVM() *VM {
	return &VM{VMID: 7, Owner: "agentlab:h/s", Name: "box", State: StateCreating, UID: 1}
}

func TestClaimLoadSaveRemove(t *testing.T) {
	s, v := openStore(t), testVM()
	if _, err := s.Load(7); !errors.Is(err, fault.NotFound) {
		t.Errorf("load before claim: %v", err)
	}
	if err := s.Claim(v); err != nil {
		t.Fatal(err)
	}
	if err := s.Claim(testVM()); !errors.Is(err, fault.Exists) {
		t.Errorf("second claim: %v, want exists", err)
	}
	v.State, v.Run = StateReady, &Run{State: RunRunning, PID: 3, StartTicks: 4, BootID: "b", Started: time.Unix(5, 0).UTC()}
	if err := s.Save(v); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load(7)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, got); diff != "" {
		t.Error(diff)
	}
	if st, err := os.Stat(s.Dir(7)); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("folder: %v, %v", st.Mode(), err)
	}
	if err := os.WriteFile(s.Path(7, "disk"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove(7); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(s.Root()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// An older plugin must not touch a VM whose disk lies on a memory template, and a
// record of before formats is read as it was.
func TestFormatOfARecordWithMemory(t *testing.T) {
	s, v := openStore(t), testVM()
	if err := s.Claim(v); err != nil {
		t.Fatal(err)
	}
	plain := *v
	for _, memory := range []*Memory{nil, {Key: "k", Disk: "/d"}, nil} {
		v.Memory = memory
		if err := s.Save(v); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(s.Path(7, recordName))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(raw), `"format": 2`); got != (memory != nil) {
			t.Errorf("record with memory %v: %s", memory, raw)
		}
		got, err := s.Load(7)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v, got); diff != "" {
			t.Error(diff)
		}
		if !got.Alike(&plain) {
			t.Error("it asks for another VM")
		}
	}
}

func TestOneOfManyClaimsWins(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = s.Claim(testVM()) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, fault.Exists):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d claims won", won)
	}
}

func TestGoneNeedsAListing(t *testing.T) {
	s := openStore(t)
	if err := os.RemoveAll(s.Root()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(7); !errors.Is(err, fault.Unavailable) {
		t.Errorf("load without the state folder: %v, want unavailable", err)
	}
}

func TestSweepTakesOnlyLeftovers(t *testing.T) {
	s := openStore(t)
	if err := s.Claim(testVM()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".new-1", ".gone-7-x", "8"} {
		if err := os.MkdirAll(filepath.Join(s.Root(), name, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	vmids, err := s.List()
	if diff := cmp.Diff([]uint32{7, 8}, vmids); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if left, _ := os.ReadDir(s.Root()); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	if _, err := s.Load(8); !errors.Is(err, ErrUnreadable) {
		t.Errorf("folder without record: %v, want unreadable", err)
	}
}

func TestLockExcludesAndFalls(t *testing.T) {
	s := openStore(t)
	unlock, err := s.Lock(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx, 7); !errors.Is(err, fault.Locked) {
		t.Errorf("second lock: %v, want locked", err)
	}
	if other, err := s.Lock(t.Context(), 8); err != nil {
		t.Error(err)
	} else {
		other()
	}
	unlock()
	again, err := s.Lock(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestMarksDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range []string{Mark(1, "a"), Mark(1, "b"), Mark(2, "a"), Mark(1, "a")} {
		seen[m] = true
	}
	if len(seen) != 3 {
		t.Errorf("marks = %v", seen)
	}
}
