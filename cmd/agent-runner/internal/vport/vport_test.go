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

// A FIFO tells of comings and goings as the port does: end of file while nobody
// is there, and once somebody leaves.
func TestClientsComeAndGo(t *testing.T) {
	l := layout.Layout{Root: t.TempDir()}
	put(t, l.At("/sys/class/virtio-ports/vport0p1/name"), channel.Port)
	put(t, l.At("/dev/x"), "")
	path := l.At("/dev/vport0p1")
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
	p := &Port{file: f, raw: raw}
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
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString("hello"); err != nil {
			t.Fatal(err)
		}
		if r := <-reads; r.text != "hello" || r.err != nil {
			t.Fatalf("read %q, %v", r.text, r.err)
		}
		w.Close()
		if r := <-reads; !errors.Is(r.err, channel.ErrHangup) {
			t.Fatalf("after the client left: %q, %v", r.text, r.err)
		}
	}
	p.Close()
	if r := <-reads; r.err == nil || errors.Is(r.err, channel.ErrHangup) {
		t.Errorf("after Close: %v", r.err)
	}
}
