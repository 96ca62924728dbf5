package bench_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const handTap = "tap-hand"

// ownNet is a network namespace to work in. One of our own has a tap, for guests that
// are started without a daemon.
type ownNet struct {
	tap  *os.File
	work chan func()
}

func newOwnNet(b *testing.B) *ownNet {
	b.Helper()
	n := &ownNet{work: make(chan func())}
	n.live(b, func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.tap, err = openTap()
		}
		for _, argv := range [][]string{
			{"ip", "address", "add", guestAPI + "/16", "dev", handTap},
			{"ip", "link", "set", handTap, "up"},
		} {
			if err == nil {
				err = exec.Command(argv[0], argv[1:]...).Run()
			}
		}
		return err
	})
	b.Cleanup(func() { _ = n.tap.Close() })
	return n
}

// joinNet enters the namespace that is kept under a path.
func joinNet(b *testing.B, pin string) *ownNet {
	b.Helper()
	n := &ownNet{work: make(chan func())}
	n.live(b, func() error {
		f, err := os.Open(pin)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	})
	return n
}

// live keeps a thread in the namespace that enter goes to, until the benchmark ends.
func (n *ownNet) live(b *testing.B, enter func() error) {
	b.Helper()
	entered := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: nothing else may run there
		entered <- enter()
		for f := range n.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		b.Fatalf("enter a network namespace: %v", err)
	}
	b.Cleanup(func() { close(n.work) })
}

func openTap() (*os.File, error) {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(handTap)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return f, unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, req)
}

// dial connects from within, as soon as somebody listens there.
func (n *ownNet) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	const pause = 2 * time.Millisecond
	done := make(chan struct{})
	n.work <- func() {
		defer close(done)
		d := net.Dialer{Timeout: time.Second}
		for {
			if conn, err = d.DialContext(ctx, "tcp", address); err == nil || ctx.Err() != nil {
				return
			}
			time.Sleep(pause)
		}
	}
	<-done
	return conn, err
}
