package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Owner is who a file shall belong to. The zero value is root.
type Owner struct{ UID, GID uint32 }

// WriteFile replaces a file whole: after a crash there is the old content or
// the new one. Missing directories are made with mode 0755. Only root gives
// files away; for others Owner is without effect.
func WriteFile(path string, content []byte, mode os.FileMode, owner Owner) error {
	return Layout{}.Write(path, content, mode, owner)
}

// touched are the file systems that a lazy layout has written to, each by its
// device with a directory on it.
type touched struct {
	mu   sync.Mutex
	dirs map[uint64]string // mu guards it
}

func (t *touched) note(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirs[st.Dev] = dir
	return nil
}

func (t *touched) list() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.dirs))
}

// Flush brings all that was written lazily to disk at once, which takes a fraction
// of the time that it takes file by file; of a layout that is not lazy all that
// anybody wrote.
func (l Layout) Flush() error {
	if l.touched == nil {
		unix.Sync()
		return nil
	}
	for _, dir := range l.touched.list() {
		d, err := os.Open(dir)
		if err != nil {
			return fmt.Errorf("open directory: %w", err)
		}
		if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
			return fmt.Errorf("flush files: %w", err)
		}
	}
	return nil
}

// Write is WriteFile, which a lazy layout does not flush, nor keep the old content
// until the new one is whole. The path is one that the layout gave.
func (l Layout) Write(path string, content []byte, mode os.FileMode, owner Owner) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if l.touched != nil {
		return errors.Join(writeAnew(path, content, mode, owner), l.touched.note(dir))
	}
	f, err := os.CreateTemp(dir, ".agentlab-*")
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer os.Remove(f.Name()) // gone after the rename
	err = fill(f, content, mode, owner)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	return syncDir(dir)
}

// writeAnew removes the old file first: over one that is there, file systems
// flush what is renamed or truncated.
func writeAnew(path string, content []byte, mode os.FileMode, owner Owner) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	if err := errors.Join(fill(f, content, mode, owner), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func fill(f *os.File, content []byte, mode os.FileMode, owner Owner) error {
	_, err := f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(int(owner.UID), int(owner.GID))
	}
	return err
}

// MakeDir makes sure that the directory exists with exactly this mode and owner.
func MakeDir(path string, mode os.FileMode, owner Owner) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("make directory %s: something else is there", path)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, int(owner.UID), int(owner.GID)); err != nil {
			return fmt.Errorf("give directory away: %w", err)
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("set directory's mode: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
