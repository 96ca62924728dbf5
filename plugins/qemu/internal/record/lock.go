package record

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

const lockPoll = 10 * time.Millisecond

// Lock makes the caller the only one who changes the VM, among goroutines and
// among processes: an old plugin may still be ending while the new one works.
// The lock is one byte of a file that all VMs share, and falls with its holder.
// fault.Locked when ctx ends first.
func (s *Store) Lock(ctx context.Context, vmid uint32) (unlock func(), err error) {
	unlock, err = LockByte(ctx, s.lock, int64(vmid), false)
	if errors.Is(err, fault.Locked) {
		err = fault.New(fault.Locked, "vm %d is busy with another call: %w", vmid, ctx.Err()).
			WithResource("vm %d", vmid)
	}
	return unlock, err
}

// LockByte locks one byte of a file, for this caller alone or shared with others
// who share it. fault.Locked when ctx ends first.
func LockByte(ctx context.Context, path string, at int64, shared bool) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, Classify("open lock", err)
	}
	// An open file description's lock, unlike a process's, also keeps two
	// goroutines apart.
	own := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	if shared {
		own.Type = unix.F_RDLCK
	}
	for {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &own)
		if err == nil {
			return func() { release(f, own) }, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, Classify("lock", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fault.New(fault.Locked, "%s is in use: %w", path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// release gives the lock up by name: a program that is just being started by another
// goroutine has the file open too, until it is itself.
func release(f *os.File, own unix.Flock_t) {
	own.Type = unix.F_UNLCK
	_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &own)
	_ = f.Close()
}
