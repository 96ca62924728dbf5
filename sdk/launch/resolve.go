package launch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

// maxLinks is how many symbolic links a path may go through.
const maxLinks = 40

// resolve follows the path link by link and refuses it where somebody other than
// root and us could lead it elsewhere: through a folder, or through a link.
// What it gives has no links. The error is fs.ErrNotExist when nothing is there.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fault.New(fault.Internal, "plugin binary %s: %w", path, err)
	}
	at, rest := "/", names(path)
	if err := checkFolder(at); err != nil {
		return "", err
	}
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			return "", fs.ErrNotExist
		case err != nil:
			return "", fault.New(fault.Denied, "way to the plugin binary: %w", err)
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", fault.New(fault.Denied, "plugin binary %s: too many symbolic links", path)
			}
			if err := checkOwner(info, next); err != nil {
				return "", err
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", fault.New(fault.Denied, "way to the plugin binary: %w", err)
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(names(target), rest...)
		case info.IsDir():
			if err := checkWriters(info, next); err != nil {
				return "", err
			}
			at = next
		case len(rest) > 0:
			return "", fs.ErrNotExist
		default:
			at = next
		}
	}
	return at, nil
}

// names are the steps of a path; ".." stays, for it leads out of where a link
// led to.
func names(path string) []string {
	var out []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			out = append(out, name)
		}
	}
	return out
}

func checkFolder(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fault.New(fault.Denied, "way to the plugin binary: %w", err)
	}
	return checkWriters(info, path)
}

// checkWriters refuses what somebody other than root and us may change. In a
// folder with the sticky bit others cannot replace our entries.
func checkWriters(info fs.FileInfo, path string) error {
	if err := checkOwner(info, path); err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&fs.ModeSticky != 0) {
		return fault.New(fault.Denied, "%s may be written by others, who could change a plugin", path).
			WithHint("chmod go-w %s", path)
	}
	return nil
}

func checkOwner(info fs.FileInfo, path string) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fault.New(fault.Denied, "%s: its owner cannot be read", path)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fault.New(fault.Denied, "%s belongs to uid %d, who could change a plugin", path, st.Uid).
			WithHint("chown -h root %s", path)
	}
	return nil
}
