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
	pid int
	fd  int
}

// Open gives a handle on the program, ErrGone if it has ended. The identity is
// compared after the handle is held, so no exchange can slip in between.
func Open(id Identity) (*Handle, error) {
	h, err := hold(id.PID)
	if err != nil {
		return nil, err
	}
	got, err := h.identify(id.UID)
	if err == nil && got != id {
		err = ErrGone
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func hold(pid int) (*Handle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	return &Handle{pid, fd}, nil
}

// identify gives ErrGone when the program has ended or is not the user's. That
// its first thread is a zombie says nothing: others may run on, and only the
// kernel's word on the handle covers them all. It is asked last, so that all
// that was read before is about this program.
func (h *Handle) identify(uid uint32) (Identity, error) {
	is, err1 := runsAs(h.pid, uid)
	st, err2 := ReadStat(h.pid)
	ended, err3 := h.poll(0)
	switch err := errors.Join(err1, err2, err3); {
	case ended:
		return Identity{}, ErrGone
	case err != nil:
		return Identity{}, err
	case !is:
		return Identity{}, ErrGone
	}
	return Identity{h.pid, st.StartTicks, uid}, nil
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
	reap(h.pid)
	return true, nil
}
