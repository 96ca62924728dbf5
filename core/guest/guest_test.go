package guest_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/guest"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestFetchBindsTokenAndCredential(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	p := sb.mustFetch()
	if p.Sandbox != sb.id || !strings.Contains(string(p.Secrets), planted) || p.Job == nil || p.Job.ID != sb.job {
		t.Fatalf("payload %+v", p)
	}
	if p.Job.TTL != time.Hour || p.Job.LogMaxBytes != 64<<20 || p.Job.UploadMaxBytes != 256<<20 || p.Job.Attempt != 1 {
		t.Errorf("job %+v", p.Job)
	}
	row, err := h.store.Sandbox(t.Context(), sb.id)
	h.must(err)
	if row.HostKey != sb.hostKey || row.ReadyAt.IsZero() {
		t.Errorf("hello was not recorded: %+v", row)
	}
	again := sb.mustFetch() // the answer was lost
	if d := cmp.Diff(p, again); d != "" {
		t.Error(d)
	}
	if _, err := sb.fetch(""); err != nil { // a reboot
		t.Error(err)
	}
	thief := *sb
	thief.credential = rand.Text() + rand.Text()
	_, err = thief.fetch(sb.token)
	wantClass(t, err, fault.Denied)
	_, err = thief.fetch("")
	wantClass(t, err, fault.Denied)
	h.wantDenials(1) // the second within ten seconds makes no event
}

func TestAddressAndCredentialGoTogether(t *testing.T) {
	h := newHost(t, guest.Limits{})
	a, b := h.addSandbox(), h.addSandbox()
	_, err := b.fetch(a.token)
	wantClass(t, err, fault.Denied)
	a.mustFetch()
	b.mustFetch()
	b.credential = a.credential
	_, err = b.fetch("")
	wantClass(t, err, fault.Denied)
	_, err = b.report(guestapi.Report{Job: a.job, Kind: guestapi.ReportFinished, Status: "failed"})
	wantClass(t, err, fault.Denied)
	h.wantDenials(1)
}

// The last calls of a runner whose credential was revoked meanwhile are refused,
// and are no alarm; anybody else's are.
func TestOwnLateCallIsNoAlarm(t *testing.T) {
	h := newHost(t, guest.Limits{})
	a, b := h.addSandbox(), h.addSandbox()
	a.mustFetch()
	b.mustFetch()
	h.must(h.store.RevokeCredentials(t.Context(), a.id))
	for name, call := range map[string]func() error{
		"heartbeat": func() error {
			_, err := a.report(guestapi.Report{Job: a.job, Kind: guestapi.ReportHeartbeat})
			return err
		},
		"log":   func() error { _, _, err := a.log(a.job, 0, "x"); return err },
		"fetch": func() error { _, err := a.fetch(""); return err },
	} {
		if err := call(); !errors.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.wantDenials(0)
	b.credential = a.credential // stolen
	_, err := b.fetch("")
	wantClass(t, err, fault.Denied)
	h.wantDenials(1)
	a.credential = strings.Repeat("x", 43)
	_, err = a.fetch("")
	wantClass(t, err, fault.Denied)
	h.wantDenials(2)
}

func TestLateWordAboutAnEarlierJobIsNoAlarm(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	next := lab.Job{ID: lab.NewID("job"), SandboxID: sb.id, State: lab.JobQueued, Task: "next", Profile: "p", TTL: time.Hour, Borrowed: true, ExitCode: -1}
	h.must(h.store.Commit(t.Context(), state.Commit{
		Jobs:      []state.JobChange{{ID: sb.job, To: lab.JobRunning}, {ID: sb.job, To: lab.JobCompleted}},
		Sandboxes: []state.SandboxChange{{ID: sb.id, To: lab.SandboxProvisioning}, {ID: sb.id, To: lab.SandboxBooting}, {ID: sb.id, To: lab.SandboxReady}},
	}))
	h.must(h.store.SubmitJob(t.Context(), next, lab.Operation{
		ID: lab.NewID("op"), Kind: lab.OpRunJob, Subject: sb.id, JobID: next.ID, State: lab.OpPending, CreatedAt: time.Now(),
	}))
	_, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportHeartbeat})
	wantClass(t, err, fault.Precondition)
	h.wantDenials(0)
	if _, err := sb.report(guestapi.Report{Job: next.ID, Kind: guestapi.ReportHeartbeat}); err != nil {
		t.Error(err)
	}
}

// An idle guest hears of a job when there is one, not at its next beat, and of nothing
// else.
func TestHeartbeatWaitsForAJob(t *testing.T) {
	type result struct {
		reply guestapi.ReportReply
		err   error
		took  time.Duration
	}
	for name, tc := range map[string]struct {
		wait  time.Duration
		then  func(h *host, sb *sandbox)
		fetch bool
		least time.Duration
	}{
		"a job": {time.Minute, func(h *host, sb *sandbox) {
			next := lab.Job{ID: lab.NewID("job"), SandboxID: sb.id, State: lab.JobQueued, Task: "next", Profile: "p", TTL: time.Hour, Borrowed: true, ExitCode: -1}
			h.must(h.store.SubmitJob(t.Context(), next, lab.Operation{
				ID: lab.NewID("op"), Kind: lab.OpRunJob, Subject: sb.id, JobID: next.ID, State: lab.OpPending, CreatedAt: time.Now(),
			}))
		}, true, 0},
		"nothing":         {200 * time.Millisecond, func(*host, *sandbox) {}, false, 200 * time.Millisecond},
		"no wait":         {0, func(*host, *sandbox) {}, false, 0},
		"its end":         {time.Minute, func(h *host, sb *sandbox) { h.sandboxTo(sb.id, lab.SandboxDestroyed) }, false, 0},
		"the daemon ends": {time.Minute, func(h *host, _ *sandbox) { h.stop() }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, guest.Limits{})
			sb := h.addSandbox()
			sb.mustFetch()
			h.must(h.store.Commit(t.Context(), state.Commit{Jobs: []state.JobChange{{ID: sb.job, To: lab.JobRunning}, {ID: sb.job, To: lab.JobCompleted}}}))
			h.sandboxTo(sb.id, lab.SandboxProvisioning, lab.SandboxBooting, lab.SandboxReady)
			began := time.Now()
			answered := make(chan result, 1)
			go func() {
				reply, err := sb.report(guestapi.Report{Kind: guestapi.ReportHeartbeat, Wait: tc.wait})
				answered <- result{reply, err, time.Since(began)}
			}()
			if tc.wait > time.Second {
				select {
				case r := <-answered:
					t.Fatalf("answered %+v, %v before anything happened", r.reply, r.err)
				case <-time.After(50 * time.Millisecond):
				}
			}
			tc.then(h, sb)
			r := <-answered
			if r.err != nil || r.reply.Fetch != tc.fetch || r.took < tc.least || r.took > guestapi.LongestWait/2 {
				t.Errorf("answered %+v, %v after %s", r.reply, r.err, r.took)
			}
		})
	}
}

func TestOneSandboxCannotTouchAnothersJob(t *testing.T) {
	h := newHost(t, guest.Limits{})
	a, b := h.addSandbox(), h.addSandbox()
	a.mustFetch()
	b.mustFetch()
	calls := map[string]func() error{
		"upload": func() error { _, _, err := b.upload(a.job, "x", []byte("x")); return err },
		"log":    func() error { _, _, err := b.log(a.job, 0, "x"); return err },
		"finish": func() error {
			_, err := b.report(guestapi.Report{Job: a.job, Kind: "finished", Status: "completed"})
			return err
		},
		"heartbeat": func() error { _, err := b.report(guestapi.Report{Job: a.job, Kind: "heartbeat"}); return err },
		"repo":      func() error { _, err := b.call(http.MethodGet, guestapi.RepoPath+"?job="+a.job, nil, nil); return err },
		"no job":    func() error { _, _, err := b.upload("", "x", []byte("x")); return err },
	}
	for name, f := range calls {
		if err := f(); !errors.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(h.artifacts, a.job)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written for the other's job: %v", err)
	}
	if _, _, err := a.upload(a.job, "x", []byte("x")); err != nil { // the way that must work
		t.Error(err)
	}
}

func TestFetchRefusesMalformedIdentity(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	good := guestapi.FetchRequest{Token: sb.token, Credential: sb.credential, HostKey: sb.hostKey}
	for name, change := range map[string]func(*guestapi.FetchRequest){
		"two keys":         func(r *guestapi.FetchRequest) { r.HostKey += "\n" + r.HostKey },
		"options":          func(r *guestapi.FetchRequest) { r.HostKey = `command="x" ` + r.HostKey },
		"no key":           func(r *guestapi.FetchRequest) { r.HostKey = "" },
		"short credential": func(r *guestapi.FetchRequest) { r.Credential = "short" },
	} {
		req := good
		change(&req)
		if _, err := sb.call(http.MethodPost, guestapi.FetchPath, req, nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	status, err := sb.call(http.MethodPost, guestapi.FetchPath, bytes.Repeat([]byte("x"), 2<<20), nil)
	if status != http.StatusRequestEntityTooLarge {
		t.Errorf("2 MiB body: status %d, %v", status, err)
	}
	sb.mustFetch()
}

func TestSecretsEndWithTheJob(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	_, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportFinished, Status: "completed", Uploaded: true})
	h.must(err)
	opens := h.bundles.opens
	p, err := sb.fetch("")
	h.must(err)
	if p.Job != nil || len(p.Secrets) != 0 || h.bundles.opens != opens {
		t.Errorf("a job that is over was handed out: %+v", p)
	}
}

func TestBundleThatNeverOpensFailsTheJob(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	h.bundles.fail(fault.New(fault.Unavailable, "plugin restarts"))
	_, err := sb.fetch(sb.token)
	wantClass(t, err, fault.Unavailable)
	j, err := h.store.Job(t.Context(), sb.job)
	h.must(err)
	if j.Reported != nil {
		t.Fatalf("a passing failure ended the job: %+v", j.Reported)
	}
	h.bundles.fail(fault.New(fault.Denied, "no key fits").WithHint("add a recipient"))
	_, err = sb.fetch(sb.token)
	wantClass(t, err, fault.Unavailable) // never 403: the runner would give up
	j, err = h.store.Job(t.Context(), sb.job)
	h.must(err)
	if j.Reported == nil || j.Reported.Status != "failed" || !strings.Contains(j.Reported.Message, "no key fits (add a recipient)") {
		t.Errorf("job was not failed with the cause: %+v", j.Reported)
	}
}

func TestListenBeforeTheAddressExists(t *testing.T) {
	ln, err := guest.Listen(t.Context(), "198.51.100.7:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if _, err := guest.Listen(t.Context(), "nonsense"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("bad address: %v", err)
	}
}

func TestConnectionsPerAddressAreLimited(t *testing.T) {
	h := newHost(t, guest.Limits{})
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.2.1")}, Timeout: 5 * time.Second}
	var open []net.Conn
	for range 40 {
		c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(h.base, "http://"))
		h.must(err)
		defer c.Close()
		open = append(open, c)
	}
	alive := 0
	for _, c := range open {
		h.must(c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			alive++
		}
	}
	if alive != 16 {
		t.Errorf("%d connections stayed open, want 16", alive)
	}
	if sb := h.addSandbox(); sb.mustFetch().Sandbox == "" { // another address is not hit
		t.Error("no payload")
	}
}

func TestCallsPerAddressAreLimited(t *testing.T) {
	h := newHost(t, guest.Limits{})
	for _, path := range []string{"/nothing", guestapi.ReportPath, "/v1//runner", guestapi.FetchPath} {
		sb := h.addSandbox()
		sb.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		begin := time.Now()
		const calls, least = 300, 900 * time.Millisecond // 200 at once, then 100 per second
		for range calls {
			if _, err := sb.call(http.MethodGet, path, nil, nil); err == nil {
				t.Fatalf("%s was answered", path)
			}
		}
		if took := time.Since(begin); took < least {
			t.Errorf("%d calls of %s took %v", calls, path, took)
		}
	}
}
