package driver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// newCachedLab has a template in the cache only.
func newCachedLab(t *testing.T, cache string) (*lab, *Driver) {
	t.Helper()
	l := newMemoryLab(t)
	l.config.MemoryCache = cache
	if cache == "" {
		l.config.MemoryCache = filepath.Join(l.state, "cache")
	}
	l.warm(l.driver())
	if err := os.RemoveAll(filepath.Join(l.state, "memory")); err != nil {
		t.Fatal(err)
	}
	return l, l.driver()
}

// Somebody may be exchanging what is read meanwhile. Nobody waits for that.
func TestCacheInUseIsNotRead(t *testing.T) {
	l, d := newCachedLab(t, "")
	unlock, err := d.cache.LockBuild(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []hypervisor.Way{hypervisor.WayBoot, hypervisor.WayMemory} {
		l.create(d)
		if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != want {
			t.Errorf("start = %+v, want %s", vm.Start, want)
		}
		l.destroyAndCheck(d)
		if want == hypervisor.WayBoot {
			unlock()
		}
	}
}

// To make a VM nothing is copied; what makes a template may copy it.
func TestCacheOnAnotherFileSystem(t *testing.T) {
	away, err := os.MkdirTemp("/dev/shm", "agentlab-memory-")
	if err != nil {
		t.Skip("needs another file system:", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(away) })
	l, d := newCachedLab(t, filepath.Join(away, "cache"))
	if err := os.Link(filepath.Join(l.config.MemoryCache, ".lock"), filepath.Join(l.state, "link")); err == nil {
		t.Skip("needs another file system")
	}
	l.create(d)
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot {
		t.Errorf("start = %+v", vm.Start)
	}
	l.destroyAndCheck(d)
	l.warm(d)
	if l.guest.settled != 1 {
		t.Errorf("%d builds", l.guest.settled)
	}
}

// A daemon that only takes from the cache keeps it tidy, too.
func TestTidyPrunesTheCache(t *testing.T) {
	_, d := newCachedLab(t, "")
	keys, err := d.cache.List()
	if err != nil || len(keys) != 1 {
		t.Fatalf("cache: %v, %v", keys, err)
	}
	old := time.Now().Add(-keepUnused - time.Hour)
	if err := os.Chtimes(d.cache.Path(keys[0], "manifest.json"), old, old); err != nil {
		t.Fatal(err)
	}
	unlock, err := d.cache.LockBuild(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	tidied := func() int {
		t.Helper()
		if err := d.Tidy(testContext(t)); err != nil {
			t.Fatal(err)
		}
		keys, err := d.cache.List()
		if err != nil {
			t.Fatal(err)
		}
		return len(keys)
	}
	if tidied() != 1 {
		t.Error("what another is at was removed")
	}
	unlock()
	if tidied() != 0 {
		t.Error("what nobody has used for long is kept")
	}
}
