package record

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

const lockPoll = 10 * time.Millisecond

// Lock makes the caller the only one who changes the VM, among goroutines and
// among processes: an old plugin may still be ending while the new one works.
// The lock falls with its holder. fault.Locked when ctx ends first.
func (s *Store) Lock(ctx context.Context, vmid uint32) (unlock func(), err error) {
	path := filepath.Join(s.locks, strconv.FormatUint(uint64(vmid), 10))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, Classify("lock vm", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, Classify("lock vm", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fault.New(fault.Locked, "vm %d is busy with another call: %w", vmid, ctx.Err()).
				WithResource("vm %d", vmid)
		case <-time.After(lockPoll):
		}
	}
}
