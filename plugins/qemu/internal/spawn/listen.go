package spawn

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Listen makes a Unix socket in the folder that only this user may connect to,
// and gives its descriptor to hand to a program. A socket left from before is
// replaced. The way through /proc keeps the address short for any folder.
func Listen(dir, name string) (*os.File, error) {
	f, err := listen(dir, name)
	if err != nil {
		return nil, fault.New(fault.Internal, "listen on %s: %w", name, err)
	}
	return f, nil
}

func listen(dir, name string) (*os.File, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	if err := unix.Unlinkat(at, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// The mode is set before the name exists, so it is never open to others.
	err = unix.Fchmod(fd, 0o600)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(at) + "/" + name})
	}
	if err == nil {
		err = unix.Listen(fd, 8)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
