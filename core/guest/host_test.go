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
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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
	stop      func() // of the newest server
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
	t.Cleanup(func() { h.must(store.Close()) })
	h.serve(limits)
	return h
}

// serve starts a server on the host's rows and files, as a restarted daemon
// does; guests' calls go to the newest.
func (h *host) serve(limits guest.Limits) {
	t := h.t
	t.Helper()
	s, err := guest.New(guest.Config{Store: h.store, Secrets: h.bundles, ArtifactsDir: h.artifacts, ReposDir: h.repos, Limits: limits})
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
	h.stop = cancel
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
}

func (h *host) sandboxTo(id string, states ...lab.SandboxState) {
	h.t.Helper()
	for _, to := range states {
		h.must(h.store.Commit(h.t.Context(), state.Commit{Sandboxes: []state.SandboxChange{{ID: id, To: to}}}))
	}
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
	transport := &http.Transport{DialContext: dialer.DialContext, ExpectContinueTimeout: 30 * time.Second}
	sb.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	h.t.Cleanup(transport.CloseIdleConnections)
	now := time.Now()
	job := lab.Job{ID: sb.job, SandboxID: sb.id, State: lab.JobQueued, Task: "do it", Profile: "p", TTL: time.Hour, CreatedAt: now, ExitCode: -1}
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
	h.must(h.store.Commit(h.t.Context(), state.Commit{Tokens: []state.Token{{SandboxID: sb.id, Hash: hash, Expires: now.Add(time.Minute)}}}))
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
	if _, ok := r.(*io.PipeReader); ok { // nothing of it is sent before the host reads
		req.Header.Set("Expect", "100-continue")
	}
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
