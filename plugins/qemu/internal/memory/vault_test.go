package memory

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
)

// vaultLab has a store of memory without templates, named by number.
type vaultLab struct {
	t *testing.T
	s *Store
	v *Vault
}

func newVaultLab(t *testing.T, keys int) vaultLab {
	l := vaultLab{t, &Store{root: t.TempDir()}, &Vault{}}
	t.Cleanup(l.v.Close)
	for key := range keys {
		dir := filepath.Join(l.s.root, strconv.Itoa(key))
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, RAMName), make([]byte, pageSize), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l vaultLab) take(key int) *os.File {
	l.t.Helper()
	f, err := l.v.Take(l.t.Context(), l.s, strconv.Itoa(key))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = f.Close() })
	return f
}

// copied tells one copy from another. What is given back is not kept open.
func (l vaultLab) copied(key int) uint64 {
	l.t.Helper()
	f := l.take(key)
	defer f.Close()
	return inode(l.t, f)
}

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestVaultKeepsTheLastUsed(t *testing.T) {
	l := newVaultLab(t, maxIdle+1)
	first := map[int]uint64{}
	for key := range maxIdle + 1 {
		first[key] = l.copied(key)
		if l.copied(0) != first[0] {
			t.Error("the memory used last was copied again")
		}
	}
	if l.copied(1) == first[1] {
		t.Error("the vault keeps more than it should")
	}
	l.v.Drop("0")
	if l.copied(0) == first[0] {
		t.Error("what was dropped is kept")
	}
}

// However many templates take turns, those that VMs run on are copied once.
func TestVaultKeepsWhatVMsRunOn(t *testing.T) {
	const sizes = 3 * maxIdle
	l := newVaultLab(t, sizes)
	first := map[int]uint64{}
	var programs []*os.File
	for key := range sizes {
		f := l.take(key)
		first[key] = inode(t, f)
		program, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0) // as QEMU does
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		programs = append(programs, program)
	}
	for key := range sizes {
		if l.copied(key) != first[key] {
			t.Errorf("%d was copied again while a vm runs on it", key)
		}
	}
	if len(l.v.held) != sizes {
		t.Errorf("%d are kept", len(l.v.held))
	}
	for _, p := range programs {
		_ = p.Close()
	}
	l.v.Trim()
	if len(l.v.held) != maxIdle {
		t.Errorf("%d are kept that nobody runs on", len(l.v.held))
	}
}

func TestVaultCopiesOnceForAll(t *testing.T) {
	l := newVaultLab(t, 1)
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for range 8 {
		all.Go(func() {
			f, err := l.v.Take(t.Context(), l.s, "0")
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			mu.Lock()
			defer mu.Unlock()
			seen[inode(t, f)] = true
		})
	}
	all.Wait()
	if len(seen) != 1 {
		t.Errorf("%d copies", len(seen))
	}
}

// While one is copied nobody waits for another, and nobody longer than he wants.
func TestVaultWaitsForOneKeyOnly(t *testing.T) {
	l := newVaultLab(t, 2)
	h, mine := l.v.reserve("0") // somebody who takes long
	if !mine {
		t.Fatal("it is there already")
	}
	l.copied(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.v.Take(ctx, l.s, "0"); !errors.Is(err, fault.Timeout) {
		t.Errorf("err = %v", err)
	}
	// That one gives up, and the next tries for himself.
	got := make(chan error, 1)
	go func() {
		f, err := l.v.Take(t.Context(), l.s, "0")
		if err == nil {
			_ = f.Close()
		}
		got <- err
	}()
	if _, err := l.v.fill(ctx, l.s, h); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestVaultLeavesTheHostItsMemory(t *testing.T) {
	l := newVaultLab(t, 1)
	available := uint64(pageSize - 1)
	l.v.Memory = func() (uint64, uint64, error) { return 0, available, nil }
	if _, err := l.v.Take(t.Context(), l.s, "0"); !errors.Is(err, fault.Exhausted) || fault.HintOf(err) == "" {
		t.Errorf("err = %v", err)
	}
	available++
	l.copied(0)
}
