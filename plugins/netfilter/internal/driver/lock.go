package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

const lockPoll = 10 * time.Millisecond

// lockOut keeps other processes of this plugin from changing the network: an old
// one may still be ending while the new one works, and each writes the tables
// whole. The lock falls with its holder.
func (d *Driver) lockOut(ctx context.Context) (unlock func(), err error) {
	if d.cfg.StateDir == "" {
		return func() {}, nil
	}
	f, err := os.OpenFile(filepath.Join(d.cfg.StateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "lock the network: %w", err)
	}
	all := unix.Flock_t{Type: unix.F_WRLCK}
	for {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &all)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fault.New(fault.Unavailable, "lock the network: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fault.New(fault.ClassOf(ctx.Err()), "wait for a network change of another process: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}
