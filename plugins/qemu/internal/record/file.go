package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

const tmpPrefix = ".tmp-"

// WriteFile puts a whole file in place or nothing: written beside, synced,
// handed to uid (and the group of that number), renamed. The bytes are on disk
// when it returns.
func WriteFile(path string, body []byte, mode fs.FileMode, uid int) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tmpPrefix)
	if err != nil {
		return Classify("write "+filepath.Base(path), err)
	}
	_, err = f.Write(body)
	if err == nil && uid != os.Getuid() {
		err = f.Chown(uid, uid)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return Classify("write "+filepath.Base(path), err)
	}
	return SyncDir(dir)
}

// Classify turns a file system error into a classified one.
func Classify(action string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.Exhausted, "%s: %w", action, err).
			WithHint("free space on the file system of the plugin's state folder")
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Denied, "%s: %w", action, err).
			WithHint("the qemu plugin must run as root: it gives files and programs to users of their own")
	}
	return fault.New(fault.Internal, "%s: %w", action, err)
}

// SyncDir makes the names in a folder last.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return Classify("sync folder", err)
	}
	return Classify("sync folder", errors.Join(f.Sync(), f.Close()))
}
