package memory

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Files in a template's folder.
const (
	RAMName      = "ram"   // the guest's memory, byte by byte
	StateName    = "state" // all else that QEMU knows of it
	DiskName     = "disk.qcow2"
	manifestName = "manifest.json"
)

const (
	formatNumber = 1
	maxManifest  = 64 << 10
	newPrefix    = ".new-"
	gonePrefix   = ".gone-"
)

// Bytes of the lock file.
const (
	buildLock = 0
	useLock   = 1
)

// Template is what a folder's manifest says.
type Template struct {
	Format  int       `json:"format"`
	Key     string    `json:"key"`
	Created time.Time `json:"created"`
	Fit     Fit       `json:"fit"`
	// Used is when a VM started from it last, not before Created.
	Used time.Time `json:"-"`
}

// Store is the folder of all memory templates.
type Store struct{ root string }

// Open prepares <state>/memory. Others may pass through it, not list it.
func Open(state string) (*Store, error) {
	const mode = 0o711
	s := &Store{root: filepath.Join(state, "memory")}
	if err := errors.Join(os.MkdirAll(s.root, mode), os.Chmod(s.root, mode)); err != nil {
		return nil, record.Classify("make folder of memory templates", err)
	}
	return s, nil
}

// Path is a file of one template, there or not.
func (s *Store) Path(key, name string) string { return filepath.Join(s.root, key, name) }

// LockBuild makes the caller the only one, on this state folder, who builds,
// sweeps or collects. The lock falls with its holder. fault.Locked when ctx ends.
func (s *Store) LockBuild(ctx context.Context) (unlock func(), err error) {
	return record.LockByte(ctx, s.lockPath(), buildLock, false)
}

// LockUse keeps templates from being removed until a VM that is to use one has
// noted so. Holding it exclusively waits for all who share it.
func (s *Store) LockUse(ctx context.Context, shared bool) (unlock func(), err error) {
	return record.LockByte(ctx, s.lockPath(), useLock, shared)
}

func (s *Store) lockPath() string { return filepath.Join(s.root, ".lock") }

// Find gives the template of a key. fault.NotFound when there is none that is
// whole.
func (s *Store) Find(key string) (Template, error) {
	none := fault.New(fault.NotFound, "there is no memory template %s", key)
	path := s.Path(key, manifestName)
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Template{}, none
	}
	if err != nil {
		return Template{}, record.Classify("look for memory template", err)
	}
	if st.Size() > maxManifest {
		return Template{}, none
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Template{}, record.Classify("read memory template", err)
	}
	var t Template
	if json.Unmarshal(raw, &t) != nil || t.Format != formatNumber || t.Key != key || t.Fit.Key() != key {
		return Template{}, none
	}
	if !s.whole(t) {
		return Template{}, none
	}
	t.Used = st.ModTime()
	return t, nil
}

// whole reports whether all files of a template are there and can be what was frozen.
func (s *Store) whole(t Template) bool {
	for _, name := range []string{RAMName, StateName, DiskName} {
		st, err := os.Stat(s.Path(t.Key, name))
		if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
			return false
		}
		if name == RAMName && st.Size() != int64(t.Fit.MemoryMiB)<<20 {
			return false
		}
	}
	return true
}

// List gives the keys of all folders, whole or not.
func (s *Store) List() ([]string, error) {
	items, err := os.ReadDir(s.root)
	if err != nil {
		return nil, record.Classify("list memory templates", err)
	}
	var out []string
	for _, item := range items {
		if !strings.HasPrefix(item.Name(), ".") {
			out = append(out, item.Name())
		}
	}
	return out, nil
}

// LastUsed gives the template that a VM started from last. NotFound when there is none.
func (s *Store) LastUsed() (Template, error) {
	keys, err := s.List()
	if err != nil {
		return Template{}, err
	}
	var last Template
	for _, key := range keys {
		t, err := s.Find(key)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return Template{}, err
		}
		if err == nil && t.Used.After(last.Used) {
			last = t
		}
	}
	if last.Key == "" {
		return Template{}, fault.New(fault.NotFound, "no memory template is there")
	}
	return last, nil
}

// MarkUsed notes that a VM starts from the template now.
func (s *Store) MarkUsed(key string) error {
	now := time.Now()
	return record.Classify("mark memory template", os.Chtimes(s.Path(key, manifestName), now, now))
}

// DiskBytes is what the template takes on the host.
func (s *Store) DiskBytes(key string) uint64 {
	var sum uint64
	for _, name := range []string{RAMName, StateName, DiskName} {
		var st syscall.Stat_t
		if err := syscall.Stat(s.Path(key, name), &st); err == nil {
			sum += uint64(st.Blocks) * 512
		}
	}
	return sum
}

// Remove frees the template's folder. The rename is the moment at which it is
// gone. Caller holds both locks.
func (s *Store) Remove(key string) error {
	grave := filepath.Join(s.root, gonePrefix+rand.Text())
	err := os.Rename(filepath.Join(s.root, key), grave)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return record.Classify("remove memory template", err)
	}
	return record.Classify("remove memory template", os.RemoveAll(grave))
}

// Sweep removes what interrupted calls left behind. Caller holds the build lock
// and has ended what a builder may have left running.
func (s *Store) Sweep() error {
	items, err := os.ReadDir(s.root)
	if err != nil {
		return record.Classify("sweep memory templates", err)
	}
	var errs []error
	for _, item := range items {
		if strings.HasPrefix(item.Name(), newPrefix) || strings.HasPrefix(item.Name(), gonePrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.root, item.Name())))
		}
	}
	return record.Classify("sweep memory templates", errors.Join(errs...))
}
