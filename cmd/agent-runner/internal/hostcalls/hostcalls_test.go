package hostcalls

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

// talk gives a host that is connected to the guest.
func talk(t *testing.T, g *Guest) *channel.Host {
	t.Helper()
	here, there := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- channel.Serve(ctx, there, g) }()
	h := channel.New(here)
	t.Cleanup(func() {
		cancel()
		<-done
		h.Close()
	})
	return h
}

func guestWith(t *testing.T, mark bool) *Guest {
	t.Helper()
	l := layout.Layout{Root: t.TempDir()}
	if err := errors.Join(os.MkdirAll(l.At("/sys/block"), 0o755), os.MkdirAll(filepath.Dir(l.TemplateMark()), 0o755)); err != nil {
		t.Fatal(err)
	}
	if mark {
		if err := os.WriteFile(l.TemplateMark(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return New(l, hclog.NewNullLogger(), nil)
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var identity = channel.Identity{Entropy: make([]byte, channel.MinEntropy)}

func TestTemplateBecomesAGuest(t *testing.T) {
	g := guestWith(t, true)
	h, ctx := talk(t, g), soon(t)
	give := errors.New("not yet")
	g.assume = func(context.Context, channel.Identity, time.Time) (channel.Assumed, error) {
		return channel.Assumed{HostKey: "k"}, give
	}
	if s, err := h.State(ctx); err != nil || s.Phase != channel.PhaseTemplate {
		t.Errorf("state %v, %v", s, err)
	}
	if _, err := h.Exec(ctx, channel.Exec{Argv: []string{"true"}}, nil, nil, nil); !errors.Is(err, fault.Precondition) {
		t.Errorf("a program in a template: %v", err)
	}
	for range 2 {
		if _, err := h.Assume(ctx, identity); err == nil || !strings.Contains(err.Error(), "not yet") {
			t.Errorf("half an identity: %v", err)
		}
		give = nil // too late
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if g.AwaitIdentity(short) == nil {
		t.Error("a guest with half an identity serves")
	}
}

// A copy of a template may rehearse until it is somebody, and is given its identity
// only when it has nothing of a rehearsal any more.
func TestRehearse(t *testing.T) {
	g := guestWith(t, true)
	ctx := soon(t)
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	var unfit error
	over := false
	g.rehearsal = func(_ context.Context, entropy []byte) error {
		if len(entropy) < channel.MinEntropy {
			t.Errorf("%d bytes of entropy", len(entropy))
		}
		begun <- struct{}{}
		<-goOn
		over = true
		return unfit
	}
	g.assume = func(context.Context, channel.Identity, time.Time) (channel.Assumed, error) {
		if !over {
			t.Error("an identity amid a rehearsal")
		}
		return channel.Assumed{}, nil
	}
	h := talk(t, g)
	first := make(chan error, 1)
	go func() { first <- h.Rehearse(ctx) }()
	<-begun
	assumed := make(chan error, 1)
	go func() {
		_, err := h.Assume(ctx, identity)
		assumed <- err
	}()
	select {
	case err := <-assumed:
		t.Errorf("assumed meanwhile: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	for _, err := range []error{<-first, <-assumed, h.Go(ctx)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := h.Rehearse(ctx); !errors.Is(err, fault.Precondition) {
		t.Errorf("a rehearsal of somebody: %v", err)
	}
	g.phase, g.given = channel.PhaseTemplate, nil
	if unfit = fault.New(fault.Unavailable, "no sshd"); !errors.Is(h.Rehearse(ctx), fault.Unavailable) {
		t.Error("a rehearsal that failed is none")
	}
	if s := g.State(); s.Phase != channel.PhaseTemplate {
		t.Errorf("after a rehearsal: %v", s)
	}
}

// A host that is killed while the guest becomes somebody finds it done by the
// next one, which asks for the same.
func TestHostAsksAgain(t *testing.T) {
	g := guestWith(t, true)
	begun, goOn := make(chan struct{}), make(chan struct{})
	g.assume = func(ctx context.Context, _ channel.Identity, _ time.Time) (channel.Assumed, error) {
		close(begun)
		<-goOn
		return channel.Assumed{HostKey: "k"}, ctx.Err()
	}
	h, ctx := talk(t, g), soon(t)
	killed, kill := context.WithCancel(ctx)
	first := make(chan error, 1)
	go func() {
		_, err := h.Assume(killed, identity)
		first <- err
	}()
	<-begun
	kill()
	if err := <-first; err == nil {
		t.Error("a call that was given up succeeded")
	}
	again := make(chan error, 1)
	go func() {
		a, err := h.Assume(ctx, identity)
		if err == nil && a.HostKey != "k" {
			err = errors.New("another key")
		}
		again <- err
	}()
	close(goOn)
	if err := <-again; err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := h.Go(ctx); err != nil {
			t.Error(err)
		}
	}
	if err := g.AwaitIdentity(ctx); err != nil {
		t.Error(err)
	}
	if s, err := h.State(ctx); err != nil || s.Phase != channel.PhaseServing {
		t.Errorf("state %v, %v", s, err)
	}
	other := identity
	other.MAC = "another"
	if _, err := h.Assume(ctx, other); !errors.Is(err, fault.Precondition) {
		t.Errorf("another identity: %v", err)
	}
}

// A copy that has its identity may still be thrown away, so it does nothing with it
// before its host says so, though its program begins anew meanwhile.
func TestNamedGuestWaitsForItsHost(t *testing.T) {
	g := guestWith(t, true)
	ctx := soon(t)
	if err := talk(t, g).Go(ctx); !errors.Is(err, fault.Precondition) {
		t.Errorf("a template was let go: %v", err)
	}
	g.assume = func(context.Context, channel.Identity, time.Time) (channel.Assumed, error) {
		return channel.Assumed{}, os.WriteFile(g.layout.TemplateMark(), []byte(layout.NamedMark), 0o600)
	}
	if _, err := talk(t, g).Assume(ctx, identity); err != nil {
		t.Fatal(err)
	}
	for name, g := range map[string]*Guest{"named": g, "restarted": New(g.layout, hclog.NewNullLogger(), nil)} {
		h := talk(t, g)
		if s, err := h.State(ctx); err != nil || s.Phase != channel.PhaseNamed {
			t.Errorf("%s: state %v, %v", name, s, err)
		}
		if _, err := h.Exec(ctx, channel.Exec{Argv: []string{"true"}}, nil, nil, nil); !errors.Is(err, fault.Precondition) {
			t.Errorf("%s: a program before the host let it go: %v", name, err)
		}
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		if g.AwaitIdentity(short) == nil {
			t.Errorf("%s: it serves before its host let it go", name)
		}
		cancel()
	}
	again := New(g.layout, hclog.NewNullLogger(), nil)
	h := talk(t, again)
	if err := h.Go(ctx); err != nil {
		t.Error(err)
	}
	if err := again.AwaitIdentity(ctx); err != nil {
		t.Error(err)
	}
	if s := New(g.layout, hclog.NewNullLogger(), nil).State(); s.Phase != channel.PhaseServing {
		t.Errorf("restarted after that: state %v", s)
	}
	if err := h.Go(ctx); err != nil {
		t.Errorf("let go once more: %v", err)
	}
}

func TestServingGuest(t *testing.T) {
	g := guestWith(t, false)
	h, ctx := talk(t, g), soon(t)
	if err := g.AwaitIdentity(ctx); err != nil {
		t.Error(err)
	}
	if err := h.AwaitReady(ctx); !errors.Is(err, fault.Precondition) {
		t.Errorf("ready for a freeze: %v", err)
	}
	if _, err := h.Assume(ctx, identity); !errors.Is(err, fault.Precondition) {
		t.Errorf("another identity: %v", err)
	}
	if err := h.Rehearse(ctx); !errors.Is(err, fault.Precondition) {
		t.Errorf("a rehearsal: %v", err)
	}
	if err := h.Go(ctx); err != nil {
		t.Errorf("let go: %v", err)
	}
	var out bytes.Buffer
	if code, err := h.Exec(ctx, channel.Exec{Argv: []string{"sh", "-c", "echo hi; exit 4"}}, nil, &out, nil); code != 4 || err != nil || out.String() != "hi\n" {
		t.Errorf("code %d, %v, %q", code, err, out.String())
	}
	if users, err := h.Busy(ctx, "vol"); err != nil || len(users) != 0 {
		t.Errorf("users %q, %v", users, err)
	}
}
