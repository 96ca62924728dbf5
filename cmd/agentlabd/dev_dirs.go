package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

// markName is a file in the directories that --dev made and --stop removes.
const markName = ".agentlab-dev"

func marked(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, markName))
	return err == nil
}

// claimDir makes the directory, or takes one that is empty or ours, and marks
// it: --stop removes it whole.
func claimDir(dir, flag string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.New(fault.Denied, "create %s: %w", dir, err)
	}
	if err := safeDir(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.New(fault.Denied, "look into %s: %w", dir, err)
	}
	if len(entries) > 0 && !marked(dir) {
		return fault.New(fault.Exists, "%s holds something else", dir).WithHint("name an empty directory with %s", flag)
	}
	return writeIfAbsent(filepath.Join(dir, markName), nil, 0o644)
}

// safeDir refuses a directory in which, or in whose place, somebody else could
// put links while root writes to it and removes it.
func safeDir(dir string) error {
	st, err := os.Lstat(dir)
	for ; err == nil; st, err = os.Stat(dir) {
		owner, ok := st.Sys().(*syscall.Stat_t)
		sticky := st.Mode()&fs.ModeSticky != 0
		if !st.IsDir() || !ok || int(owner.Uid) != os.Geteuid() && owner.Uid != 0 || st.Mode().Perm()&0o022 != 0 && !sticky {
			return fault.New(fault.Denied, "%s may be changed by others", dir).
				WithHint("name a directory below one that only root may write, such as /var/lib")
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
	return errors.Join(fault.New(fault.Denied, "look at %s", dir), err)
}
