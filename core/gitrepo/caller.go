package gitrepo

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// caller is the user whom git commands run as, nil for the user that this
// program runs as.
type caller struct {
	credential syscall.Credential
	home       string
}

// callerOf gives the user who called sudo if the repository is theirs: what
// root wrote into it, they could not change any more.
func callerOf(dir string) *caller {
	id := os.Getenv("SUDO_UID")
	if os.Geteuid() != 0 || id == "" || id == "0" {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || strconv.FormatUint(uint64(owner.Uid), 10) != id {
		return nil
	}
	gid, err := strconv.ParseUint(os.Getenv("SUDO_GID"), 10, 32)
	if err != nil {
		gid = uint64(owner.Gid)
	}
	c := &caller{credential: syscall.Credential{Uid: owner.Uid, Gid: uint32(gid), Groups: []uint32{uint32(gid)}}, home: "/nonexistent"}
	if u, err := user.LookupId(id); err == nil {
		c.home = u.HomeDir
	}
	return c
}

// environ gives what differs for the caller.
func (c *caller) environ() []string {
	if c == nil {
		return nil
	}
	return []string{"HOME=" + c.home, "XDG_CONFIG_HOME=" + c.home + "/.config"}
}

// attributes makes a command run as the caller.
func (c *caller) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if c != nil {
		a.Credential = &c.credential
	}
	return a
}

// tempDir makes a temporary directory that the caller's commands can use.
func (c *caller) tempDir(pattern string) (string, error) {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", fmt.Errorf("make temporary directory: %w", err)
	}
	if c != nil {
		if err := os.Chown(dir, int(c.credential.Uid), int(c.credential.Gid)); err != nil {
			return "", fmt.Errorf("give temporary directory away: %w", err)
		}
	}
	return dir, nil
}

// own gives a file that was made in such a directory to the caller.
func (c *caller) own(path string) error {
	if c == nil {
		return nil
	}
	if err := os.Chown(path, int(c.credential.Uid), int(c.credential.Gid)); err != nil {
		return fmt.Errorf("give file away: %w", err)
	}
	return nil
}
