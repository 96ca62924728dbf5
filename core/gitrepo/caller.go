package gitrepo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
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
		if err := os.Lchown(dir, int(c.credential.Uid), int(c.credential.Gid)); err != nil {
			return "", fmt.Errorf("give temporary directory away: %w", err)
		}
	}
	return dir, nil
}

// put makes a file, as the caller: in a directory of theirs they could lead
// root's hand elsewhere by a link.
func (c *caller) put(ctx context.Context, path string, body io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", `umask 077; cat >"$0"`, path)
	cmd.Env, cmd.Dir, cmd.Stdin = []string{"PATH=/usr/bin:/bin"}, "/", body
	cmd.SysProcAttr, cmd.WaitDelay = c.attributes(), time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write %s: %w: %s", path, err, bytes.TrimSpace(out))
	}
	return nil
}

// open opens a file for reading that the caller could read themselves: they
// may have put a link to another in its place.
func (c *caller) open(path string) (*os.File, error) {
	if c == nil {
		return os.Open(path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); !ok || !st.Mode().IsRegular() || owner.Uid != c.credential.Uid {
		_ = f.Close()
		return nil, fault.New(fault.Denied, "%s is not a file of uid %d", path, c.credential.Uid).
			WithHint("give it to the repository's owner with chown, or run the command without sudo")
	}
	return f, nil
}
