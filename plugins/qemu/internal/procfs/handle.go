package procfs

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Handle holds on to one program: the kernel keeps it apart from any later one
// with the same pid.
type Handle struct {
	id Identity
	fd int
}

// Open gives a handle on the program, ErrGone if it has ended. The identity is
// compared after the handle is held, so no exchange can slip in between.
func Open(id Identity) (*Handle, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	if err := Check(id); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &Handle{id, fd}, nil
}

// Close lets go; the program runs on.
func (h *Handle) Close() { _ = unix.Close(h.fd) }

// Kill ends the program at once. One that has ended already is no error.
func (h *Handle) Kill() error {
	err := unix.PidfdSendSignal(h.fd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Ended reports, without waiting, whether the program has ended.
func (h *Handle) Ended() bool {
	ended, _ := h.poll(0)
	return ended
}

// Wait returns nil once the program has ended, else ctx's error.
func (h *Handle) Wait(ctx context.Context) error {
	for {
		ended, err := h.poll(50 * time.Millisecond)
		if ended || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (h *Handle) poll(wait time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(wait.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil || n == 0 {
		return false, err
	}
	reap(h.id.PID)
	return true, nil
}
