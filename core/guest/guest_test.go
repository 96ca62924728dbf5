package guest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/core/guest"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/secrets"
)

const planted = "planted-secret-0123456789"

// host is a guest API on loopback over a real store and real directories.
type host struct {
	t         testing.TB
	store     *state.Store
	bundles   *bundles
	artifacts string
	repos     string
	base      string
}

func newHost(t testing.TB, limits guest.Limits) *host {
	t.Helper()
	dir := t.TempDir()
	store, err := state.Open(t.Context(), filepath.Join(dir, "agentlab.db"))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{
		t: t, store: store, bundles: &bundles{}, artifacts: filepath.Join(dir, "artifacts"), repos: filepath.Join(dir, "repos"),
	}
	if limits.DiskFloor == 0 {
		limits.DiskFloor = 1
	}
	s, err := guest.New(guest.Config{Store: store, Secrets: h.bundles, ArtifactsDir: h.artifacts, ReposDir: h.repos, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := guest.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.base = "http://" + ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, s.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// bundles is a secrets driver with one bundle, "default".
type bundles struct {
	mu    sync.Mutex
	err   error
	opens int
}

func (b *bundles) Open(_ context.Context, name, _ string) (secrets.Bundle, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opens++
	if b.err != nil {
		return secrets.Bundle{}, b.err
	}
	if name != "default" {
		return secrets.Bundle{}, fault.New(fault.NotFound, "no bundle %q", name).WithHint("make it")
	}
	doc := `{"version":1,"env":{"API_KEY":"` + planted + `","key":"another-secret-value"},"git":{"username":"bot-user","token":"git-token-value"},` +
		`"claude":{"settings":{"model":"large-model","env":{"K":"claude-env-value"}}},"ssh":{"keys":{"me":{"key":"AAAAB3publickey"}}}}`
	return secrets.Bundle{Document: secret.New(doc), Version: "1"}, nil
}

func (b *bundles) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// sandbox is one guest: a row, an address of its own, and what it knows.
type sandbox struct {
	h          *host
	id, job    string
	addr       string
	token      string
	credential string
	hostKey    string
	http       *http.Client
}

var sandboxes int

// addSandbox makes a booting sandbox with a job and a fresh token.
func (h *host) addSandbox() *sandbox { return h.addSandboxWith(func(*lab.Job) {}) }

func (h *host) addSandboxWith(change func(*lab.Job)) *sandbox {
	h.t.Helper()
	sandboxes++
	sb := &sandbox{
		h: h, id: lab.NewID("sbx"), job: lab.NewID("job"), addr: fmt.Sprintf("127.0.1.%d", sandboxes%250+1),
		token: rand.Text(), credential: rand.Text() + rand.Text(), hostKey: newHostKey(h.t),
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(sb.addr)}, Timeout: 5 * time.Second}
	transport := &http.Transport{DialContext: dialer.DialContext}
	sb.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	h.t.Cleanup(transport.CloseIdleConnections)
	now := time.Now()
	job := lab.Job{ID: sb.job, SandboxID: sb.id, State: lab.JobQueued, Task: "do it", Profile: "p", CreatedAt: now, ExitCode: -1}
	change(&job)
	h.must(h.store.Submit(h.t.Context(), state.Submission{
		Sandbox: &lab.Sandbox{
			ID: sb.id, Name: "s" + sb.id[4:], VMID: uint32(1000 + sandboxes), Address: netip.MustParseAddr(sb.addr),
			State: lab.SandboxRequested, JobID: sb.job, CreatedAt: now,
			Spec: lab.Spec{Bundle: "default", TTL: time.Hour, AgentCommand: "echo hi", InnerSandbox: "none"},
		},
		Job: &job,
	}))
	hash := sha256.Sum256([]byte(sb.token))
	h.must(h.store.PutToken(h.t.Context(), sb.id, hash[:], now.Add(time.Minute)))
	return sb
}

func newHostKey(t testing.TB) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) wantDenials(n int) {
	h.t.Helper()
	events, err := h.store.Events(h.t.Context(), state.EventFilter{Types: []string{lab.EventGuestDenied}})
	h.must(err)
	if len(events) != n {
		h.t.Errorf("%d denials were recorded, want %d: %+v", len(events), n, events)
	}
}

// call sends a body (bytes, or JSON of anything else) and decodes the answer.
func (sb *sandbox) call(method, path string, body, out any) (int, error) {
	sb.h.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	case io.Reader:
		r = b
	default:
		j, err := json.Marshal(b)
		sb.h.must(err)
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(sb.h.t.Context(), method, sb.h.base+path, r)
	sb.h.must(err)
	req.Header.Set("Authorization", "Bearer "+sb.credential)
	resp, err := sb.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.Header.Get("Content-Type") != "application/json" {
		return resp.StatusCode, problem.Read(resp)
	}
	if out != nil {
		sb.h.must(json.NewDecoder(resp.Body).Decode(out))
	}
	return resp.StatusCode, nil
}

func (sb *sandbox) fetch(token string) (guestapi.Payload, error) {
	sb.h.t.Helper()
	req := guestapi.FetchRequest{Token: token, HostKey: sb.hostKey + " root@guest", BootID: "boot", Runner: "1"}
	if token != "" {
		req.Credential = sb.credential
	}
	var p guestapi.Payload
	_, err := sb.call(http.MethodPost, guestapi.FetchPath, req, &p)
	return p, err
}

func (sb *sandbox) mustFetch() guestapi.Payload {
	sb.h.t.Helper()
	p, err := sb.fetch(sb.token)
	sb.h.must(err)
	return p
}

func (sb *sandbox) upload(job, path string, body any) (guestapi.UploadReply, int, error) {
	sb.h.t.Helper()
	var reply guestapi.UploadReply
	status, err := sb.call(http.MethodPost, guestapi.UploadPath+"?"+url.Values{"job": {job}, "path": {path}}.Encode(), body, &reply)
	return reply, status, err
}

func (sb *sandbox) log(job string, offset int, chunk string) (int64, int, error) {
	sb.h.t.Helper()
	var reply guestapi.LogReply
	status, err := sb.call(http.MethodPost, fmt.Sprintf("%s?job=%s&offset=%d", guestapi.LogPath, job, offset), []byte(chunk), &reply)
	return reply.Offset, status, err
}

func (sb *sandbox) report(r guestapi.Report) (guestapi.ReportReply, error) {
	sb.h.t.Helper()
	var reply guestapi.ReportReply
	_, err := sb.call(http.MethodPost, guestapi.ReportPath, r, &reply)
	return reply, err
}

func wantClass(t testing.TB, err error, want fault.Class) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v (%s), want %s", err, fault.ClassOf(err), want)
	}
}

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
