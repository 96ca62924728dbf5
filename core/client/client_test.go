package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// serve starts a daemon that is not ours.
func serve(t *testing.T, f http.HandlerFunc, o Options) *Client {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	o.Endpoint = srv.URL
	return newClient(t, o)
}

func TestConnectErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	dev := t.TempDir()
	if err := os.WriteFile(filepath.Join(dev, ".agentlab-dev"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	for name, tc := range map[string]struct {
		o          Options
		says, hint string
	}{
		"no socket":    {Options{Socket: none}, "the daemon is not running: there is no " + none, "whose run_dir is " + dir},
		"stale socket": {Options{Socket: stale}, "the daemon is not running: nobody listens at " + stale, "whose run_dir is " + dir},
		"dev daemon":   {Options{Socket: filepath.Join(dev, "s")}, "the daemon is not running: there is no " + filepath.Join(dev, "s"), "agentlabd --dev --dev-run-dir " + dev},
		"remote down":  {Options{Endpoint: "http://127.0.0.1:1"}, "nobody listens at http://127.0.0.1:1", "listens on its Unix socket only"},
	} {
		_, err := newClient(t, tc.o).Status(t.Context())
		if !errors.Is(err, fault.Unavailable) || err.Error() != tc.says || !strings.Contains(fault.HintOf(err), tc.hint) {
			t.Errorf("%s: %v, hint %q", name, err, fault.HintOf(err))
		}
		if strings.Contains(fault.HintOf(err), "systemctl") || strings.Contains(fault.HintOf(err), "control_listen") {
			t.Errorf("%s: hint %q does not fit", name, fault.HintOf(err))
		}
	}
	for socket, hint := range map[string]string{DefaultSocket: "systemctl start agentlabd where that is installed, a throw-away one with sudo agentlabd --dev,", DevSocket: "sudo agentlabd --dev,"} {
		err := newClient(t, Options{Socket: socket}).connectError(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENOENT)})
		if !errors.Is(err, syscall.ENOENT) || !strings.Contains(fault.HintOf(err), hint) {
			t.Errorf("%s: %v, hint %q", socket, err, fault.HintOf(err))
		}
	}
	// Root is never refused, so the kernel's answer is made here.
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}
	err = newClient(t, Options{}).connectError(refused)
	if !errors.Is(err, fault.Denied) || !strings.Contains(fault.HintOf(err), "usermod -aG agentlab") {
		t.Errorf("no permission: %v, hint %q", err, fault.HintOf(err))
	}
	err = newClient(t, Options{Socket: stale}).connectError(refused)
	if err.Error() != "no permission to use "+stale || !strings.Contains(fault.HintOf(err), "use sudo: ") {
		t.Errorf("no permission to a dev daemon's: %v, hint %q", err, fault.HintOf(err))
	}
	for _, bad := range []string{"host:8845", "ftp://x", "http://", "::"} {
		if _, err := New(Options{Endpoint: bad}); !errors.Is(err, fault.Invalid) {
			t.Errorf("endpoint %q: %v", bad, err)
		}
	}
}

func TestCallsHaveADeadline(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	c := serve(t, func(http.ResponseWriter, *http.Request) { <-hang }, Options{Timeout: 50 * time.Millisecond, Patience: -1})
	for name, f := range map[string]func() error{
		"status": func() error { _, err := c.Status(t.Context()); return err },
		"log":    func() error { _, err := c.JobLog(t.Context(), "j", LogQuery{}); return err },
		"dial":   func() error { _, err := c.DialSandbox(t.Context(), "s", 22); return err },
		"events": func() error {
			for _, err := range c.Events(t.Context(), EventQuery{}) {
				return err
			}
			return nil
		},
	} {
		start := time.Now()
		if err := f(); !errors.Is(err, fault.Timeout) || time.Since(start) > 5*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		}
	}
}

func TestStreamsOutliveTheDeadline(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 4 {
			_, _ = fmt.Fprint(w, i)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	}, Options{Timeout: 100 * time.Millisecond})
	r, err := c.JobLog(t.Context(), "j", LogQuery{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "0123" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestFaultsComeBackTyped(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, fault.New(fault.Locked, "busy").WithHint("wait").WithResource("vm 7"))
	}, Options{})
	_, err := c.CreateJob(t.Context(), api.JobCreate{})
	var f *fault.Error
	if !errors.As(err, &f) || f.Class != fault.Locked || f.Hint != "wait" || f.Resource != "vm 7" {
		t.Errorf("%+v", err)
	}
}

func TestTokenStaysWithTheEndpoint(t *testing.T) {
	var leaked atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		leaked.Store(true)
	}))
	defer other.Close()
	var got atomic.Value
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}, Options{Token: secret.New("the-token")})
	if err := c.Health(t.Context()); err == nil || strings.Contains(err.Error(), "the-token") {
		t.Errorf("a redirect was taken for an answer: %v", err)
	}
	if got.Load() != "Bearer the-token" || leaked.Load() {
		t.Errorf("token sent: %v, redirect followed: %v", got.Load(), leaked.Load())
	}
}

func TestEventsReconnectBehindTheLastOne(t *testing.T) {
	var calls atomic.Int32
	var afters [4]string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		if n > 4 {
			problem.Write(w, fault.New(fault.Denied, "enough"))
			return
		}
		afters[n-1] = r.URL.Query().Get("after")
		w.Header().Set("Content-Type", "text/event-stream")
		switch n {
		case 1: // cut before the first event
			_, _ = io.WriteString(w, "id: 40\n\n")
		case 2:
			_, _ = io.WriteString(w, ": alive\n\nid: 41\nevent: x\ndata: {\"id\":41,\ndata: \"type\":\"x\"}\n\n")
		case 3: // cut in the middle of one
			_, _ = io.WriteString(w, "id: 42\ndata: {\"id\":42,\"ty")
		case 4:
			_, _ = io.WriteString(w, "id: 42\r\ndata: {\"id\":42,\"type\":\"y\"}\r\n\r\n")
		}
	}, Options{Patience: 30 * time.Second})
	var ids []int64
	var last error
	for e, err := range c.Events(t.Context(), EventQuery{}) {
		if err != nil {
			last = err
			break
		}
		ids = append(ids, e.ID)
	}
	if d := cmp.Diff([]int64{41, 42}, ids); d != "" || !errors.Is(last, fault.Denied) {
		t.Errorf("%s %v", d, last)
	}
	if d := cmp.Diff([4]string{"", "40", "41", "41"}, afters); d != "" {
		t.Error(d)
	}
}

func TestEventsNoticeADeadStream(t *testing.T) {
	var calls atomic.Int32
	hang := make(chan struct{})
	defer close(hang)
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) > 1 {
			_, _ = io.WriteString(w, "id: 1\ndata: {\"id\":1}\n\n")
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-hang
	}, Options{})
	c.silence = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for e, err := range c.Events(ctx, EventQuery{}) {
		if err != nil || e.ID != 1 {
			t.Errorf("%+v, %v", e, err)
		}
		return
	}
	t.Error("no event")
}

// Several calls that wait for one daemon tell once that it is away, and once that
// it is back.
func TestWhoWaitsIsTold(t *testing.T) {
	var mu sync.Mutex
	var told []bool
	up := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-up:
			_, _ = io.WriteString(w, `{"state":"DONE"}`)
		default:
			panic(http.ErrAbortHandler) // the connection breaks
		}
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, Options{Endpoint: srv.URL, Patience: 30 * time.Second})
	c.Watch(func(away bool) {
		mu.Lock()
		defer mu.Unlock()
		if told = append(told, away); away {
			close(up)
		}
	})
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			if op, err := c.WaitOperation(t.Context(), "op_1"); err != nil || op.State != "DONE" {
				t.Errorf("%+v, %v", op, err)
			}
		})
	}
	wait.Wait()
	if want := []bool{true, false}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestPatienceEnds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	c := newClient(t, Options{Socket: socket, Patience: 300 * time.Millisecond})
	for name, f := range map[string]func() error{
		"log":       func() error { return c.FollowLog(t.Context(), "j", LogQuery{}, io.Discard) },
		"operation": func() error { _, err := c.WaitOperation(t.Context(), "o"); return err },
		"events": func() error {
			for _, err := range c.Events(t.Context(), EventQuery{}) {
				return err
			}
			return nil
		},
	} {
		start := time.Now()
		err := f()
		if took := time.Since(start); !errors.Is(err, fault.Unavailable) || took < 250*time.Millisecond || took > 5*time.Second {
			t.Errorf("%s: %v after %s", name, err, took)
		}
	}
}

func TestFollowLogWritesNoByteTwice(t *testing.T) {
	const whole = "0123456789"
	var calls atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var at int
		_, _ = fmt.Sscan(r.URL.Query().Get("offset"), &at)
		n := calls.Add(1)
		if n == 1 && r.URL.Query().Get("tail") != "1" {
			t.Error("tail was not asked for")
		}
		if n == 1 {
			at = 2
		}
		w.Header().Set(api.LogOffsetHeader, fmt.Sprint(at))
		if n < 4 {
			_, _ = io.WriteString(w, whole[at:at+2])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, whole[at:])
	}, Options{})
	var out strings.Builder
	if err := c.FollowLog(t.Context(), "j", LogQuery{Tail: 1}, &out); err != nil || out.String() != whole[2:] {
		t.Errorf("%q, %v", out.String(), err)
	}
	full := errors.New("disk full")
	calls.Store(3)
	if err := c.FollowLog(t.Context(), "j", LogQuery{}, failing{full}); !errors.Is(err, full) {
		t.Errorf("the writer's error: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestCutDownloadIsAnError(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}, Options{})
	r, err := c.ArtifactArchive(t.Context(), "j")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); !errors.Is(err, fault.Unavailable) {
		t.Errorf("%q, %v", b, err)
	}
}

// Whatever a message says, it is read as it was written.
func FuzzReadSSE(f *testing.F) {
	f.Add(int64(1), "{}", "alive")
	f.Add(int64(7), "a: b\nid: 9\n\n: c", "")
	f.Fuzz(func(t *testing.T, id int64, text, comment string) {
		data, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		comment = strings.Map(func(r rune) rune {
			if r == '\n' || r == '\r' {
				return ' '
			}
			return r
		}, comment)
		stream := fmt.Sprintf(": %s\n\nid: %d\nevent: x\ndata: %s\n\n", comment, id, data)
		var got []sseMessage
		err = readSSE(strings.NewReader(stream), func(m sseMessage) (bool, error) {
			if m.data != "" {
				got = append(got, m)
			}
			return true, nil
		})
		if err != nil || len(got) != 1 || got[0].id != id || !got[0].hasID || got[0].data != string(data) {
			t.Errorf("%q became %+v, %v", stream, got, err)
		}
	})
}

// A daemon that dies with a request in its hands may have taken it.
func TestLostAnswers(t *testing.T) {
	var calls atomic.Int32
	ids := make(chan string, 8)
	answer := func(w http.ResponseWriter, r *http.Request) {
		var req api.JobCreate
		_ = json.NewDecoder(r.Body).Decode(&req)
		ids <- req.ID
		if calls.Add(1) < 3 {
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(api.Accepted{Job: &api.Job{ID: req.ID}})
	}
	c := serve(t, answer, Options{Patience: 10 * time.Second})
	a, err := c.CreateJob(t.Context(), api.JobCreate{Task: "x"})
	if err != nil || a.Job == nil {
		t.Fatal(err)
	}
	for range 3 {
		if id := <-ids; id == "" || id != a.Job.ID {
			t.Errorf("asked for %q, then %q", a.Job.ID, id)
		}
	}
	calls.Store(-10)
	_, err = serve(t, answer, Options{Patience: -1}).CreateJob(t.Context(), api.JobCreate{Task: "x"})
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(fault.HintOf(err), "agentlab job show job_") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	began := time.Now()
	_, err = newClient(t, Options{Endpoint: "http://127.0.0.1:1"}).CreateJob(t.Context(), api.JobCreate{Task: "x"})
	if !errors.Is(err, fault.Unavailable) || strings.Contains(fault.HintOf(err), "accepted") || time.Since(began) > 5*time.Second {
		t.Errorf("nobody there: %v, hint %q, after %s", err, fault.HintOf(err), time.Since(began))
	}
}
