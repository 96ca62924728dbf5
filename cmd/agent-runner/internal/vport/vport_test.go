package vport

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	l := layout.Layout{Root: t.TempDir()}
	put(t, l.At("/sys/class/virtio-ports/vport0p1/name"), "org.qemu.guest_agent.0\n")
	if _, err := Open(l, channel.Port); !errors.Is(err, fault.NotFound) {
		t.Errorf("without the port: %v", err)
	}
	put(t, l.At("/sys/class/virtio-ports/vport1p2/name"), channel.Port+"\n")
	if got, err := find(l, channel.Port); err != nil || got != l.At("/dev/vport1p2") {
		t.Errorf("found %q, %v", got, err)
	}
}

// fifo is a port whose comings and goings are told as by a real one: end of file
// while nobody is there, and once somebody leaves.
func fifo(t *testing.T) (p *Port, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "vport0p1")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return newPort(f, raw), path
}

// say connects a client that says something.
func say(t *testing.T, path, text string) (leave func()) {
	t.Helper()
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return func() { _ = w.Close() }
}

// A client that takes the place of one that left is heard at the next look, and the
// hang-up of the first is not taken for its own.
func TestClientsTakeTurns(t *testing.T) {
	for _, comesAt := range []int{1, 3} {
		p, path := fifo(t)
		b := make([]byte, 16)
		leave := say(t, path, "first")
		if n, err := p.Read(b); string(b[:n]) != "first" || err != nil {
			t.Fatalf("read %q, %v", b[:n], err)
		}
		leave()
		var looks int
		var waited time.Duration
		p.pause = func(d time.Duration) {
			looks++
			waited += d
			if looks == comesAt {
				t.Cleanup(say(t, path, "second"))
			}
		}
		if n, err := p.Read(b); string(b[:n]) != "second" || err != nil {
			t.Fatalf("read %q, %v", b[:n], err)
		}
		if looks != comesAt || waited > hangupWait/2 {
			t.Errorf("a client that came at look %d was heard at look %d, after %s", comesAt, looks, waited)
		}
		p.Close()
	}
}

// Nobody is missed before the kernel has had its time.
func TestHangupIsToldInTime(t *testing.T) {
	p, path := fifo(t)
	defer p.Close()
	b := make([]byte, 16)
	leave := say(t, path, "x")
	if n, err := p.Read(b); n != 1 || err != nil {
		t.Fatalf("read %q, %v", b[:n], err)
	}
	leave()
	var waited time.Duration
	p.pause = func(d time.Duration) { waited += d }
	if n, err := p.Read(b); !errors.Is(err, channel.ErrHangup) || waited != hangupWait {
		t.Errorf("read %q, %v after %s", b[:n], err, waited)
	}
}

func TestClientsComeAndGo(t *testing.T) {
	p, path := fifo(t)
	type result struct {
		text string
		err  error
	}
	reads := make(chan result)
	go func() {
		defer close(reads)
		for {
			b := make([]byte, 16)
			n, err := p.Read(b)
			reads <- result{string(b[:n]), err}
			if err != nil && !errors.Is(err, channel.ErrHangup) {
				return
			}
		}
	}()
	for range 2 {
		select {
		case r := <-reads:
			t.Fatalf("read %q, %v from nobody", r.text, r.err)
		case <-time.After(20 * time.Millisecond):
		}
		leave := say(t, path, "hello")
		if r := <-reads; r.text != "hello" || r.err != nil {
			t.Fatalf("read %q, %v", r.text, r.err)
		}
		leave()
		if r := <-reads; !errors.Is(r.err, channel.ErrHangup) {
			t.Fatalf("after the client left: %q, %v", r.text, r.err)
		}
	}
	p.Close()
	if r := <-reads; r.err == nil || errors.Is(r.err, channel.ErrHangup) {
		t.Errorf("after Close: %v", r.err)
	}
}
