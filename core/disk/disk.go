package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Free gives the bytes that may still be written below dir by anybody.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fault.New(fault.Internal, "look at free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Room is fault.Exhausted when n more bytes below dir would leave less than
// floor bytes free.
func Room(dir string, n, floor int64) error {
	free, err := Free(dir)
	if err != nil {
		return err
	}
	if free-n < floor {
		return fault.New(fault.Exhausted, "only %d MiB are free under %s", free>>20, dir).
			WithHint("free disk space: %d MiB are kept back for the daemon itself", floor>>20)
	}
	return nil
}

// OpenDir makes a directory that only root reads, if it is missing, and opens it
// as the root of all paths below.
func OpenDir(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Internal, "make directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.New(fault.Internal, "open directory: %w", err)
	}
	return root, nil
}

// Written gives an error of writing its class: fault.Exhausted where the disk or
// a quota of it is full, else fault.Internal. what names the action.
func Written(what string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.New(fault.Exhausted, "%s: %w", what, err).WithHint("free disk space under data_dir")
	}
	return fault.New(fault.Internal, "%s: %w", what, err)
}
