package procfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
)

const testUID = 423_457

func start(t *testing.T, how testhost.Program) Identity {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to start programs as other users")
	}
	how.UID = testUID
	pid := testhost.Start(t, how)
	st, err := ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{PID: pid, StartTicks: st.StartTicks, UID: testUID}
}

func TestCheckComparesEverything(t *testing.T) {
	id := start(t, testhost.Program{Args: []string{"sleep", "600"}})
	if err := Check(id); err != nil {
		t.Fatalf("the program itself: %v", err)
	}
	for name, change := range map[string]func(*Identity){
		"pid":   func(i *Identity) { i.PID = os.Getpid() },
		"start": func(i *Identity) { i.StartTicks++ },
		"user":  func(i *Identity) { i.UID += 77 },
	} {
		other := id
		change(&other)
		if err := Check(other); !errors.Is(err, ErrGone) {
			t.Errorf("other %s: %v, want gone", name, err)
		}
		if h, err := Open(other); !errors.Is(err, ErrGone) {
			t.Errorf("open other %s: %v, want gone", name, err)
			h.Close()
		}
	}
	found, err := Find(id.UID)
	if err != nil || len(found) != 1 || found[0] != id {
		t.Errorf("found %+v, %v, want %+v", found, err, id)
	}
}

// A program whose first thread has ended is a zombie in /proc and runs on.
func TestProgramWithoutFirstThread(t *testing.T) {
	id := start(t, testhost.Program{Headless: true})
	if err := Check(id); err != nil {
		t.Errorf("check: %v", err)
	}
	if found, err := Find(id.UID); err != nil || len(found) != 1 || found[0] != id {
		t.Errorf("found %+v, %v, want %+v", found, err, id)
	}
	h, err := Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := errors.Join(h.Kill(), h.Wait(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := Check(id); !errors.Is(err, ErrGone) {
		t.Errorf("check after the end: %v", err)
	}
	if found, err := Find(id.UID); err != nil || len(found) > 0 {
		t.Errorf("found after the end: %+v, %v", found, err)
	}
}

// What cannot be read may be what is looked for.
func TestUnreadableEntryFailsTheSearch(t *testing.T) {
	dir := t.TempDir()
	old := root
	t.Cleanup(func() { root = old })
	root = dir
	other := filepath.Join(dir, "4711")
	if err := errors.Join(os.Mkdir(other, 0o755), os.Mkdir(filepath.Join(dir, "self"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(testUID); err != nil || len(found) > 0 {
		t.Errorf("an entry that went meanwhile: %v, %v", found, err)
	}
	if err := os.Mkdir(filepath.Join(other, "status"), 0o755); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(testUID); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("an entry that cannot be read: %v, %v", found, err)
	}
	root = filepath.Join(dir, "missing")
	if found, err := Find(testUID); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("no proc: %v, %v", found, err)
	}
}

func TestKillAndWait(t *testing.T) {
	id := start(t, testhost.Program{Args: []string{"sleep", "600"}})
	h, err := Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	short, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if err := h.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a live program: %v", err)
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	long, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.Wait(long); err != nil {
		t.Fatal(err)
	}
	if err := Check(id); !errors.Is(err, ErrGone) {
		t.Errorf("check after the end: %v", err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(id.PID)); err == nil {
		t.Error("the program was not laid to rest")
	}
	if err := h.Kill(); err != nil {
		t.Errorf("second kill: %v", err)
	}
}

func TestParseStatWithOddName(t *testing.T) {
	st, err := parseStat([]byte("12 (a) S 1) Z 1 1 1 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 999 4096 3 18446744073709551615"))
	if err != nil || st.StartTicks != 999 || st.CPUTicks != 42 || st.RSSBytes != uint64(3*os.Getpagesize()) {
		t.Errorf("stat = %+v, %v", st, err)
	}
	for _, bad := range []string{"", "1 (x) S", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 a 12 0 0 20 0 1 0 999 4096 3"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
