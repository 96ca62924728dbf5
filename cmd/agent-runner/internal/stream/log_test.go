package stream_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/stream"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// host takes pieces, and fails or takes half of them as told.
type host struct {
	mu   sync.Mutex
	got  []byte
	fail func() bool
}

func (h *host) send(_ context.Context, offset int64, b []byte) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil && h.fail() {
		if rand.N(2) == 0 && offset == int64(len(h.got)) { // the answer is lost, not the piece
			h.got = append(h.got, b...)
		}
		return 0, fault.New(fault.Unavailable, "down")
	}
	if offset == int64(len(h.got)) {
		h.got = append(h.got, b...)
	}
	return int64(len(h.got)), nil
}

func open(t *testing.T, path string, max int64) *stream.Log {
	t.Helper()
	l, err := stream.Open(path, max, secret.NewRedactor(secret.New("planted-secret")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestShipThroughFailures(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "log"), 0)
	n := 0
	h := &host{fail: func() bool { n++; return n%3 != 0 && n < 12 }}
	shipped := make(chan error, 1)
	go func() { shipped <- l.Ship(t.Context(), h.send) }()
	var want strings.Builder
	for i := range 2000 {
		line := strings.Repeat("x", i%70) + " planted-secret\n"
		want.WriteString(strings.ReplaceAll(line, "planted-secret", secret.Mask))
		cut := i % len(line)
		l.Write([]byte(line[:cut]))
		l.Write([]byte(line[cut:]))
	}
	if err := l.End(); err != nil {
		t.Fatal(err)
	}
	if err := <-shipped; err != nil {
		t.Fatal(err)
	}
	if string(h.got) != want.String() {
		t.Errorf("the host has %d bytes, want %d", len(h.got), want.Len())
	}
}

func TestShipAfterRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	h := &host{}
	l := open(t, path, 0)
	l.Write([]byte("first\n"))
	ctx, cancel := context.WithCancel(t.Context())
	shipped := make(chan error, 1)
	go func() { shipped <- l.Ship(ctx, h.send) }()
	cancel()
	<-shipped
	for name, ahead := range map[string]string{"host behind or even": "", "host ahead": "first\nlost on disk\n"} {
		if ahead != "" {
			h.got = []byte(ahead)
		}
		before := string(h.got)
		again := open(t, path, 0)
		done := make(chan error, 1)
		go func() { done <- again.Ship(t.Context(), h.send) }()
		if err := again.End(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.HasPrefix(string(h.got), before) || !strings.HasPrefix(string(h.got), "first\n") {
			t.Errorf("%s: host has %q", name, h.got)
		}
	}
}

func TestQuota(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "log"), 1000)
	h := &host{}
	for range 100 {
		l.Write([]byte(strings.Repeat("y", 99) + "\n"))
	}
	select {
	case <-l.Exceeded():
	default:
		t.Error("the quota is not noticed")
	}
	l.End()
	if err := l.Ship(t.Context(), h.send); err != nil || len(h.got) != 1000 {
		t.Errorf("host has %d bytes, %v", len(h.got), err)
	}
}

func TestHostQuota(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "log"), 0)
	l.Write([]byte("text"))
	err := l.Ship(t.Context(), func(context.Context, int64, []byte) (int64, error) {
		return 0, fault.New(fault.Exhausted, "full")
	})
	select {
	case <-l.Exceeded():
	default:
		t.Error("the host's quota is not noticed")
	}
	if !errors.Is(err, fault.Exhausted) {
		t.Errorf("error %v", err)
	}
}
