package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// execInNamespace replaces this process by argv running in the network
// namespace pinned at pin, which is made if it is not there. The namespace
// lives as long as the pin, so a daemon started after a crash finds its guests
// in it.
func execInNamespace(pin string, argv, env []string) error {
	// A namespace belongs to a thread; exec carries the calling thread's over
	// to the whole new process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := enterNamespace(pin); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", pin, err)
	}
	if err := unix.Exec("/proc/self/exe", argv, env); err != nil {
		return fault.New(fault.Internal, "run agentlabd again in its namespace: %w", err)
	}
	return nil
}

func enterNamespace(pin string) error {
	pinned, err := isNamespace(pin)
	if err != nil {
		return err
	}
	if pinned {
		f, err := os.Open(pin)
		if err != nil {
			return fault.New(fault.Denied, "open: %w", err)
		}
		defer func() { _ = f.Close() }()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fault.New(fault.Denied, "join: %w", err)
		}
		return nil
	}
	return makeNamespace(pin)
}

func makeNamespace(pin string) error {
	f, err := os.OpenFile(pin, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fault.New(fault.Denied, "create the pin: %w", err)
	}
	_ = f.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fault.New(fault.Denied, "make: %w", err).WithHint("--dev needs root: run it with sudo")
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fault.New(fault.Internal, "bring up lo: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", pin, "", unix.MS_BIND, ""); err != nil {
		return fault.New(fault.Denied, "pin: %w", err).WithHint("--dev needs root: run it with sudo")
	}
	return nil
}

// isNamespace reports whether pin is a mounted namespace, and not the plain
// file that a start cut short left behind.
func isNamespace(pin string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(pin, &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fault.New(fault.Denied, "look at %s: %w", pin, err)
	}
	return st.Type == unix.NSFS_MAGIC, nil
}
