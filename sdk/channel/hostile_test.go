package channel_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

// A client that is killed in the middle of a line, and what it had asked for,
// are nothing to the next one.
func TestClientKilledInMidLine(t *testing.T) {
	p := newPort()
	cancelled := make(chan struct{})
	serve(t, p, &guest{settle: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			close(cancelled)
			return ctx.Err()
		case <-time.After(20 * time.Second):
			return nil
		}
	}})
	for _, half := range []string{
		``, `{`, "\n" + `{"s":"old","k":"open"}` + "\n" + `{"s":"old","c":1,"k":"sta`, "\xff\x00\n\n", strings.Repeat("x", 5<<20),
		"\n" + `{"s":"old","k":"open"}` + "\n" + `{"s":"old","c":1,"k":"ready"}` + "\n" + `{"s":"old","c":2,"k":"exec","b":7}` + "\n{",
	} {
		old := p.dial(t)
		if _, err := io.WriteString(old, half); err != nil {
			t.Fatal(err)
		}
		old.Close()
		h := newHost(t, p.dial(t))
		if s, err := h.State(soon(t)); err != nil || s.Phase != channel.PhaseTemplate {
			t.Errorf("after %.40q: %v, %v", half, s, err)
		}
		h.Close()
	}
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Error("a call of the killed client goes on")
	}
}

// Two clients number their calls alike; an old one that does not end does not
// stand in the new one's way.
func TestCallOfAnOldSessionStillEnding(t *testing.T) {
	p := newPort()
	free := make(chan struct{})
	begun := make(chan struct{})
	serve(t, p, &guest{settle: func(context.Context) error { close(begun); <-free; return nil }})
	old := newHost(t, p.dial(t))
	waiting := make(chan error, 1)
	ctx := soon(t)
	go func() { waiting <- old.AwaitReady(ctx) }()
	<-begun
	old.Close()
	if err := <-waiting; !errors.Is(err, fault.Unavailable) {
		t.Errorf("error %v", err)
	}
	if _, err := newHost(t, p.dial(t)).State(soon(t)); err != nil {
		t.Error(err)
	}
	close(free)
}

// A runner that is restarted loses calls, but a wait for the template goes on;
// the host may be there long before the guest.
func TestRunnerRestarts(t *testing.T) {
	here, there := pair(t)
	h, ctx := newHost(t, here), soon(t)
	ready := make(chan error, 1)
	go func() { ready <- h.AwaitReady(ctx) }()
	time.Sleep(20 * time.Millisecond) // the question waits in the socket
	begun := make(chan struct{}, 1)
	first, end := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() {
		gone <- channel.Serve(first, keepOpen{there}, &guest{settle: func(ctx context.Context) error {
			begun <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}})
	}()
	<-begun
	lost := make(chan error, 1)
	go func() {
		_, err := h.Exec(ctx, channel.Exec{Argv: []string{"x"}}, nil, nil, nil)
		lost <- err
	}()
	end()
	_ = there.SetReadDeadline(time.Unix(1, 0))
	<-gone
	_ = there.SetReadDeadline(time.Time{})
	serve(t, there, &guest{})
	if err := <-ready; err != nil {
		t.Errorf("the wait did not survive: %v", err)
	}
	<-lost
}

// The answer of a guest whose program ended after it had let itself go is lost, and
// asked for again.
func TestGoOfARunnerThatRestarts(t *testing.T) {
	here, there := pair(t)
	h, ctx := newHost(t, here), soon(t)
	begun := make(chan struct{}, 1)
	first, end := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() { gone <- channel.Serve(first, keepOpen{there}, &stuckInGo{begun: begun}) }()
	went := make(chan error, 1)
	go func() { went <- h.Go(ctx) }()
	<-begun
	end()
	_ = there.SetReadDeadline(time.Unix(1, 0))
	<-gone
	_ = there.SetReadDeadline(time.Time{})
	serve(t, there, &guest{})
	if err := <-went; err != nil {
		t.Error(err)
	}
}

// stuckInGo never answers Go.
type stuckInGo struct {
	guest
	begun chan struct{}
}

func (g *stuckInGo) Go(ctx context.Context) error {
	g.begun <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// keepOpen is a port that outlives who serves it.
type keepOpen struct{ net.Conn }

func (keepOpen) Close() error { return nil }

// hostile answers the host's session with whatever a line holds: %s is the
// session.
func hostile(t *testing.T, conn net.Conn, lines ...string) {
	t.Helper()
	go func() {
		sc := bufio.NewScanner(conn)
		for sc.Scan() {
			var m struct{ S, K string }
			if json.Unmarshal(sc.Bytes(), &m) != nil {
				continue
			}
			say := lines
			if m.K == "open" {
				say = []string{`{"s":"other","k":"opened","v":2}`, `{"s":"%s","k":"opened","v":2}`}
				if strings.Contains(lines[0], `"opened"`) {
					say = lines
				}
			}
			for _, l := range say {
				if strings.Contains(l, "%s") {
					l = fmt.Sprintf(l, m.S)
				}
				if _, err := io.WriteString(conn, l+"\n"); err != nil {
					return
				}
			}
		}
	}()
}

func TestHostileGuest(t *testing.T) {
	many := make([]string, 100)
	for i := range many {
		many[i] = `{"s":"%s","c":1,"k":"stdout","d":"AAAA"}`
	}
	took := make([]string, 100)
	for i := range took {
		took[i] = `{"s":"%s","c":1,"k":"took"}`
	}
	for name, c := range map[string]struct {
		lines []string
		class fault.Class
	}{
		"endless line":      {[]string{strings.Repeat("x", 1<<20)}, fault.Unavailable},
		"flood of output":   {many, fault.Unavailable},
		"flood of credit":   {took, fault.Unavailable},
		"nonsense":          {[]string{"\x00\xff", `{"k":7}`, `[]`, `{"s":"%s","c":1,"k":"answer","b":"text"}`}, fault.Unavailable},
		"other session":     {[]string{`{"s":"zzz","c":1,"k":"answer","b":{"phase":"serving"}}`}, fault.Timeout},
		"other call":        {[]string{`{"s":"%s","c":99,"k":"answer","b":{"phase":"serving"}}`}, fault.Timeout},
		"unknown class":     {[]string{`{"s":"%s","c":1,"k":"answer","e":{"class":"../../x","message":"m"}}`}, fault.Internal},
		"wrong kind":        {[]string{`{"s":"%s","c":1,"k":"stdout","d":"AAAA"}`}, fault.Unavailable},
		"restarts for ever": {[]string{`{"k":"started"}`}, fault.Unavailable},
		"older wire":        {[]string{`{"s":"%s","k":"opened","v":1}`}, fault.Unsupported},
		"newer wire":        {[]string{`{"s":"%s","k":"opened","v":3}`}, fault.Unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := pair(t)
			hostile(t, there, c.lines...)
			h := newHost(t, here)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := h.State(ctx)
			if !errors.Is(err, c.class) {
				t.Errorf("error %v of class %s, want %s", err, fault.ClassOf(err), c.class)
			}
		})
	}
}

// An agent-runner passes over calls that are younger than it is.
func TestRehearsalOfAnOlderRunner(t *testing.T) {
	here, there := pair(t)
	hostile(t, there, `{"s":"%s","c":1,"k":"answer","b":{"phase":"template","runner":"0.9"}}`)
	err := newHost(t, here).Rehearse(soon(t))
	if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "0.9") || fault.HintOf(err) == "" {
		t.Errorf("error %v", err)
	}
}

// A guest that never reads does not hold a call beyond its time.
func TestDeafGuest(t *testing.T) {
	here, _ := pair(t)
	h := newHost(t, here)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		_, err := h.Assume(ctx, channel.Identity{Entropy: make([]byte, 64), Seed: channel.Seed{UserData: make([]byte, 1<<20)}})
		cancel()
		if took := time.Since(start); !errors.Is(err, fault.Timeout) || took > 10*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte("\n{\"s\":\"a\",\"k\":\"open\"}\n\n{\"s\":\"a\",\"c\":1,\"k\":\"exec\",\"b\":{\"argv\":[\"x\"]}}\n"))
	f.Add([]byte(`{"s":"a","c":1,"k":"stdin","d":"!!"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newPort()
		stop := serve(t, p, &guest{
			got: make(chan channel.Identity, 1000),
			exec: func(ctx context.Context, _ channel.Exec, in io.Reader, out, _ io.Writer) (int, error) {
				_, err := io.Copy(out, in)
				return 0, err
			},
		})
		conn := p.dial(t)
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		_, _ = conn.Write(b)
		conn.Close()
		stop()
	})
}
