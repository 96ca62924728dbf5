package launch

import (
	"io/fs"
	"os"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

// TakeDir makes the plugin's user the owner of its state folder, and of what the
// plugin left in it under another user.
func (g Grant) TakeDir(dir string) error {
	if !g.Confined || os.Geteuid() != 0 {
		return nil
	}
	// Inside of a Root no link leads out, whatever was left there.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.New(fault.Unavailable, "state folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	info, err := root.Lstat(".")
	if err != nil {
		return fault.New(fault.Unavailable, "state folder: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == g.UID && int(st.Gid) == g.GID {
		return nil
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != "." {
			err = root.Lchown(path, g.UID, g.GID)
		}
		return err
	})
	if err == nil { // last, for the folder's owner says that all is done
		err = root.Lchown(".", g.UID, g.GID)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "give the state folder to the plugin's user: %w", err)
	}
	return nil
}
