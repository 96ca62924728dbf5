package memory

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

// OpenCache prepares a folder of templates that several stores share. No VM depends
// on what is in it: each store has links of its own to the files. What others than
// root may write to is refused.
func OpenCache(root string) (*Store, error) {
	if err := makeFolders(root); err != nil {
		return nil, record.Classify("make cache of memory templates", err)
	}
	st, err := os.Lstat(root)
	if err != nil {
		return nil, record.Classify("look at cache of memory templates", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || int(sys.Uid) != os.Getuid() || st.Mode().Perm()&0o022 != 0 {
		return nil, fault.New(fault.Precondition, "%s is no folder that only this user may write to", root).
			WithHint("chown root: %s && chmod go-w %s, or name another with memory_cache", root, root)
	}
	return &Store{root: root}, nil
}

// makeFolders makes the folder for this user alone, and those above it, where they
// are missing, for everybody to pass through: images may be beside it. What is there
// is left as it is.
func makeFolders(root string) error {
	folder := func(dir string, mode fs.FileMode) error {
		if err := os.Mkdir(dir, mode); err != nil {
			return err
		}
		return os.Chmod(dir, mode) // whatever the umask
	}
	var missing []string
	for dir := filepath.Dir(root); ; dir = filepath.Dir(dir) {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		if err := folder(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := folder(root, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Share puts a template of this store into another one, and takes no further disk
// where both are on one file system. Caller holds the build locks of both.
func (s *Store) Share(ctx context.Context, to *Store, key string) error {
	return s.share(to, key, func(from, to string) error { return linkOrCopy(ctx, from, to) })
}

// Link is Share that takes no time: it is fault.Unsupported from one file system to
// another.
func (s *Store) Link(to *Store, key string) error {
	err := s.share(to, key, os.Link)
	if errors.Is(err, syscall.EXDEV) {
		return fault.New(fault.Unsupported, "link memory template: %w", err)
	}
	return err
}

func (s *Store) share(to *Store, key string, put func(from, to string) error) error {
	t, err := s.Find(key)
	if err != nil {
		return err
	}
	if _, err := to.Find(key); err == nil {
		return nil
	}
	draft, err := to.Begin()
	if err != nil {
		return err
	}
	for _, name := range []string{RAMName, StateName, DiskName} {
		if err = put(s.Path(key, name), draft.Path(name)); err != nil {
			err = record.Classify("share memory template", err)
			break
		}
	}
	if err == nil {
		err = draft.place(t)
	}
	if err != nil {
		return errors.Join(err, draft.Discard())
	}
	return nil
}

func linkOrCopy(ctx context.Context, from, to string) error {
	err := os.Link(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(st.Size()); err != nil {
		return err
	}
	return errors.Join(copyPages(ctx, out, in, st.Size()), out.Chmod(st.Mode().Perm()), out.Sync())
}

// Prune removes what has not been used for so long, or was made from files that are
// no more. It is for a cache: no VM depends on one. Caller holds its build lock.
func (s *Store) Prune(unused time.Duration) error {
	keys, err := s.List()
	if err != nil {
		return err
	}
	errs := []error{s.Sweep()}
	for _, key := range keys {
		t, err := s.Find(key)
		if err != nil && !errors.Is(err, fault.NotFound) {
			errs = append(errs, err)
			continue
		}
		if err != nil || time.Since(t.Used) > unused || t.Fit.gone() {
			errs = append(errs, s.Remove(key))
		}
	}
	return errors.Join(errs...)
}

// gone reports whether a file has been changed or removed.
func (f Fit) gone() bool {
	for _, was := range []File{f.Disk, f.Kernel, f.Initrd, f.QEMU} {
		if was.Path == "" {
			continue
		}
		now, err := Look(was.Path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now != was {
			return true
		}
	}
	return false
}
