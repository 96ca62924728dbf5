package vport

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Port is the guest's end; one goroutine at a time may read.
type Port struct {
	file *os.File
	raw  syscall.RawConn
	up   bool // the host's client was there at the last look
	// pause sleeps between looks.
	pause func(time.Duration)
}

// Open opens the port of this name. fault.NotFound: this VM has none, or its
// driver is not there yet.
func Open(l layout.Layout, name string) (*Port, error) {
	path, err := find(l, name)
	if err != nil {
		return nil, err
	}
	// Without O_NONBLOCK a write to a host that is not there is never over.
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open port: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open port: %w", err), f.Close())
	}
	return newPort(f, raw), nil
}

func newPort(f *os.File, raw syscall.RawConn) *Port {
	return &Port{file: f, raw: raw, pause: time.Sleep}
}

// find asks the kernel itself: udev's link may come later.
func find(l layout.Layout, name string) (string, error) {
	names, _ := filepath.Glob(l.At("/sys/class/virtio-ports/*/name"))
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err == nil && strings.TrimSpace(string(b)) == name {
			return l.At("/dev/" + filepath.Base(filepath.Dir(n))), nil
		}
	}
	return "", fault.New(fault.NotFound, "this VM has no port %s", name)
}

// hangupWait is how much later the kernel may hear of a hang-up than of the next
// client's first words: the two come by different queues. A client that is there is
// mostly seen at the first looks.
const (
	hangupWait = 300 * time.Millisecond
	firstLook  = 5 * time.Millisecond
)

// Read gives what the host says, and channel.ErrHangup once when its client has
// gone and no other has come at once. The kernel then tells of nothing to read
// until there is another.
func (p *Port) Read(b []byte) (int, error) {
	for {
		n, err := p.read(b)
		if n > 0 || !errors.Is(err, channel.ErrHangup) {
			return n, err
		}
		if n, err := p.next(b); n > 0 || err != nil {
			return n, err
		}
	}
}

// next waits for another client, whose first words it gives if they are there.
func (p *Port) next(b []byte) (int, error) {
	for wait, waited := firstLook, time.Duration(0); waited < hangupWait; wait *= 2 {
		wait = min(wait, hangupWait-waited)
		p.pause(wait)
		waited += wait
		n, there, err := p.look(b)
		if p.up = there; there || err != nil {
			return n, err
		}
	}
	return 0, channel.ErrHangup
}

// look reads without waiting, and reports whether the host's client is there.
func (p *Port) look(b []byte) (n int, there bool, err error) {
	var readErr error
	err = p.raw.Read(func(fd uintptr) bool {
		n, readErr = unix.Read(int(fd), b)
		return true
	})
	switch {
	case err != nil:
		return 0, false, err
	case errors.Is(readErr, unix.EAGAIN):
		return 0, true, nil
	case readErr != nil:
		return 0, false, fmt.Errorf("read port: %w", readErr)
	}
	return n, n > 0, nil
}

func (p *Port) read(b []byte) (int, error) {
	var n int
	var err error
	waitErr := p.raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			p.up = true
			return false
		case n == 0 && err == nil && !p.up:
			return false
		}
		return true
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, fmt.Errorf("read port: %w", err)
	case n == 0 && len(b) > 0:
		p.up = false
		return 0, channel.ErrHangup
	}
	p.up = true
	return n, nil
}

// Write waits while the host has no client.
func (p *Port) Write(b []byte) (int, error) { return p.file.Write(b) }

// Close ends waits of Read and Write.
func (p *Port) Close() error { return p.file.Close() }
