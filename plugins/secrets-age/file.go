package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

// maxFile is the largest file that is read, in bytes: a bundle is at most
// 1 MiB, armor adds a third.
const maxFile = 2 << 20

// sealed is a file that only its owner (and perhaps a group) can read.
type sealed struct {
	content []byte
	info    fs.FileInfo
	warning string // "" when the mode is as it should be
}

// readSealed reads f whole after its mode and owner were checked on the open
// file, so that nobody can swap it in between. path is for messages.
func readSealed(f *os.File, path string) (sealed, error) {
	info, err := f.Stat()
	if err != nil {
		return sealed{}, openError(err, path)
	}
	if !info.Mode().IsRegular() {
		return sealed{}, fault.New(fault.Invalid, "%s is not a regular file", path)
	}
	mode := info.Mode().Perm()
	if mode&0o027 != 0 {
		return sealed{}, fault.New(fault.Denied, "%s has mode %04o, so others may read or change it", path, mode).
			WithHint("chmod 600 %s", path)
	}
	if uid := ownerOf(info); uid != 0 && uid != os.Geteuid() {
		return sealed{}, fault.New(fault.Denied, "%s belongs to uid %d", path, uid).
			WithHint("chown %d %s", daemonUID(), path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return sealed{}, openError(err, path)
	}
	if len(content) > maxFile {
		return sealed{}, fault.New(fault.Invalid, "%s is larger than %d bytes", path, maxFile)
	}
	s := sealed{content: content, info: info}
	if mode&0o040 != 0 {
		s.warning = path + " may be read by its group; chmod 600 is safer"
	}
	return s, nil
}

// checkDir refuses a directory in which others could replace files.
func checkDir(info fs.FileInfo, path string) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fault.New(fault.Denied, "%s has mode %04o, so others may replace what is in it", path, mode).
			WithHint("chmod 700 %s", path)
	}
	return nil
}

func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// daemonUID is the user that keys belong to: the daemon's, for a plugin may have
// been given one of its own.
func daemonUID() int {
	info, err := os.Stat("/proc/" + strconv.Itoa(os.Getppid()))
	if err != nil {
		return os.Geteuid()
	}
	return ownerOf(info)
}

func openError(err error, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "%s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Denied, "%s may not be read by uid %d", path, os.Geteuid())
	}
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return fault.New(fault.Unavailable, "read %s: %w", path, err)
}
