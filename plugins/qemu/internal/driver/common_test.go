package driver

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/hostcheck"
	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
)

// common is what the labs of one run share, as the daemons of one host do.
var common shared

type shared struct {
	labs     atomic.Uint32
	versions hostcheck.Versions // programs are asked for it once

	lookForImage sync.Once
	newImage     bool // this host had no memory template of it when the run began

	mu  sync.Mutex // mu guards: dir, and the making of what is in the caches
	dir string     // of one image and of the cache with its memory template
}

func (s *shared) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = os.RemoveAll(s.dir)
}

// folders gives those of the image and the cache. Caller holds mu.
func (s *shared) folders(t *testing.T) (images, cache string) {
	t.Helper()
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "agentlab-qemu-")
		if err != nil {
			t.Fatal(err)
		}
		s.dir = dir
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		testhost.KernelTemplate(t, filepath.Join(dir, "images"), testhost.Count)
	}
	return filepath.Join(s.dir, "images"), filepath.Join(s.dir, "cache")
}

// newWarmLab has a memory template, of which no more is asked than that it is there.
// The first such lab makes it. Its files have other names elsewhere: see damage.
func newWarmLab(t *testing.T) *lab {
	t.Helper()
	l := newMemoryLab(t)
	common.mu.Lock()
	defer common.mu.Unlock()
	l.config.TemplateDir, l.config.MemoryCache = common.folders(t)
	l.guest.ready = l.hasCounted
	l.warm(l.driver())
	l.guest.ready, l.config.MemoryCache = nil, ""
	return l
}

// damage cuts the state in a memory template short, and in no other that shares it.
func (l *lab) damage(d *Driver) {
	l.t.Helper()
	path := d.memory.Path(l.keys(d)[0], memory.StateName)
	state, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, state[:1000], 0o400); err != nil {
		l.t.Fatal(err)
	}
}
