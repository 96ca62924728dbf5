package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

// markName is a file in the two directories that --dev made and --stop removes. Each
// names the other, whatever becomes of the configuration between them.
const markName = ".agentlab-dev"

func marked(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, markName))
	return err == nil
}

// partner is the directory that is named in the mark of dir, "" where none is.
func partner(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, markName))
	return strings.TrimSpace(string(text))
}

// paired: both marks say so. A mark alone is of a start that was cut short, or the
// other directory has gone.
func paired(a, b string) bool { return partner(a) == b && partner(b) == a }

// checkFree refuses directories of a dev daemon that runs, or that may be started again
// with what it has in another one, before anything in them is changed.
func (o devOptions) checkFree() error {
	if runDir := partner(o.dir); runDir != o.runDir && paired(o.dir, runDir) {
		return fault.New(fault.Exists, "the dev daemon in %s has its socket in %s, not in %s", o.dir, runDir, o.runDir).
			WithHint("start it with --dev-run-dir %s, or end it with all it has: %s", runDir, stopCommand(o.dir))
	}
	if err := o.checkRunDir(); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(o.dir, "data"), o.runDir} {
		if pid := lockHolder(dir); pid != "" {
			return fault.New(fault.Locked, "another agentlabd uses %s", dir).WithHolder("process "+pid).
				WithHint("it is process %s; use it, or end it with all it has: %s", pid, stopCommand(o.dir))
		}
	}
	return nil
}

// checkRunDir refuses another daemon's.
func (o devOptions) checkRunDir() error {
	dir := partner(o.runDir)
	if dir == "" || dir == o.dir || !paired(dir, o.runDir) {
		return nil
	}
	return fault.New(fault.Exists, "%s belongs to the dev daemon in %s, not in %s", o.runDir, dir, o.dir).
		WithHint("name another directory with --dev-run-dir, or end that daemon with all it has: %s", stopCommand(dir))
}

// stopCommand is what a person types to end the dev daemon of the directory.
func stopCommand(dir string) string {
	if dir == devDir {
		return "make demo-stop, which is agentlabd --dev --stop"
	}
	return "agentlabd --dev --stop --dev-dir " + dir
}

// claimDir makes the directory, or takes one that is empty or ours, and marks it as
// one of a pair: --stop removes both whole.
func claimDir(dir, other, flag string) error {
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
	if marked(dir) && partner(dir) == other {
		return nil
	}
	return writeFile(filepath.Join(dir, markName), []byte(other+"\n"), 0o644)
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
