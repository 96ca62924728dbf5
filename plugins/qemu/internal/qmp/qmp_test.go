package qmp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

const greeting = `{"QMP": {"version": {}, "capabilities": []}}`

// serve plays QEMU: it greets, then answers each line with the next answer; ""
// stays silent, "hang up" closes.
func serve(t *testing.T, answers ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), strings.Repeat("long-", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listen(dir, "s")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintln(conn, greeting)
		in := bufio.NewScanner(conn)
		for _, answer := range append([]string{`{"return": {}}`}, answers...) {
			if !in.Scan() || answer == "hang up" {
				return
			}
			if answer != "" {
				fmt.Fprintln(conn, answer)
			}
		}
		in.Scan()
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return dir
}

func dialTest(t *testing.T, dir string, limit time.Duration) (*Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	c, err := Dial(ctx, dir, "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, ctx
}

func TestStatusPassesEvents(t *testing.T) {
	dir := serve(t, `{"event": "RESUME", "timestamp": {}}`+"\n"+`{"return": {"status": "paused", "running": false}}`)
	c, ctx := dialTest(t, dir, 5*time.Second)
	if got, err := c.Status(ctx); err != nil || got != "paused" {
		t.Errorf("status = %q, %v", got, err)
	}
}

func TestRefusal(t *testing.T) {
	c, ctx := dialTest(t, serve(t, `{"error": {"class": "GenericError", "desc": "no such device"}}`), 5*time.Second)
	err := c.Execute(ctx, "eject", nil, nil)
	var refused *CommandError
	if !errors.As(err, &refused) || refused.Command != "eject" || refused.Desc != "no such device" {
		t.Errorf("err = %v", err)
	}
}

func TestSilenceEndsWithTheDeadline(t *testing.T) {
	c, ctx := dialTest(t, serve(t, ""), 200*time.Millisecond)
	begun := time.Now()
	if err := c.Execute(ctx, "stop", nil, nil); !errors.Is(err, fault.Timeout) {
		t.Errorf("err = %v, want timeout", err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestHangUp(t *testing.T) {
	c, ctx := dialTest(t, serve(t, "hang up"), 5*time.Second)
	if err := c.Execute(ctx, "quit", nil, nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("err = %v, want unavailable", err)
	}
}

func TestHostileReplies(t *testing.T) {
	for name, answer := range map[string]string{
		"endless line": `{"return": "` + strings.Repeat("x", maxReply) + `"}`,
		"no JSON":      "hello",
		"wrong type":   `{"return": 3}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, ctx := dialTest(t, serve(t, answer), 5*time.Second)
			if _, err := c.Status(ctx); err == nil {
				t.Error("the reply was accepted")
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	if _, err := Dial(t.Context(), t.TempDir(), "s"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("err = %v, want unavailable", err)
	}
}

// listen binds by a short path: the folder's own is longer than a socket's
// address may be, which is what Dial has to cope with.
func listen(dir, name string) (net.Listener, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name))
}
