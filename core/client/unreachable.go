package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

// connectError says in words what a failed exchange means. The cause is said
// only where it adds something.
func (c *Client) connectError(err error) error {
	where := c.base.Redacted()
	if c.socket != "" {
		where = c.socket
	}
	if op, ok := errors.AsType[*url.Error](err); ok {
		err = op.Err // how we called is of no interest
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && c.socket != "" {
		err = op.Err // where has the address
	}
	switch {
	case errors.Is(err, context.Canceled):
		return because(err, fault.Unavailable, "call to the daemon was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return because(err, fault.Timeout, "the daemon at %s did not answer in time", where)
	case c.socket != "" && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EACCES)):
		return because(err, fault.Denied, "no permission to use %s", where).WithHint("%s", deniedHint(c.socket))
	case c.socket != "" && errors.Is(err, fs.ErrNotExist):
		return because(err, fault.Unavailable, "the daemon is not running: there is no %s", where).WithHint("%s", startHint(c.socket))
	case c.socket != "" && errors.Is(err, syscall.ECONNREFUSED):
		return because(err, fault.Unavailable, "the daemon is not running: nobody listens at %s", where).WithHint("%s", startHint(c.socket))
	case errors.Is(err, syscall.ECONNREFUSED):
		return because(err, fault.Unavailable, "nobody listens at %s", where).WithHint(remoteHint)
	case broken(err):
		return because(err, fault.Unavailable, "the daemon at %s closed the connection", where)
	case c.socket == "":
		return fault.New(fault.Unavailable, "reach the daemon at %s: %w", where, err).WithHint(remoteHint)
	}
	return fault.New(fault.Unavailable, "reach the daemon at %s: %w", where, err)
}

// because is an error whose words hold those of its cause already.
func because(cause error, class fault.Class, format string, args ...any) *fault.Error {
	e := fault.New(class, format, args...)
	e.Err = cause
	return e
}

// remoteHint: an endpoint is somebody's proxy, or not there at all.
const remoteHint = "agentlabd listens on its Unix socket only, in this version; bring that of another machine here with " +
	"ssh -N -L ./agentlabd.sock:" + DefaultSocket + " HOST, and use --socket ./agentlabd.sock"

// startHint says how the daemon of the socket is started.
func startHint(socket string) string {
	dir := filepath.Dir(socket)
	switch {
	case socket == DefaultSocket:
		return "start it with systemctl start agentlabd where that is installed, a throw-away one with sudo agentlabd --dev, or name another daemon's socket with --socket"
	case socket == DevSocket:
		return "start it with sudo agentlabd --dev, or name another daemon's socket with --socket"
	case isDev(dir):
		return "start it with sudo agentlabd --dev --dev-run-dir " + dir + " and the --dev-dir it had"
	}
	return "start the daemon whose run_dir is " + dir + ", or name another socket with --socket; an installed one has " + DefaultSocket
}

// isDev reports whether a dev daemon has marked its directory.
func isDev(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, ".agentlab-dev"))
	return err == nil
}

// group is whom a socket is for, beside root.
const group = "agentlab"

// deniedHint says how to be let in: the socket is for a group, or for root and,
// of a dev daemon, for whoever called sudo.
func deniedHint(socket string) string {
	if socket == DefaultSocket || groupOf(socket) == group {
		return "join the group that owns the socket (sudo usermod -aG " + group + " $USER, then log in again) or use sudo"
	}
	return "use sudo: it is root's, and a dev daemon's also for the user who started that with sudo"
}

// groupOf names the group of the file, or of its directory where that hides it.
func groupOf(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		st, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return ""
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	g, err := user.LookupGroupId(strconv.FormatUint(uint64(sys.Gid), 10))
	if err != nil {
		return ""
	}
	return g.Name
}
