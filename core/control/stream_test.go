package control_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestLog(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	id := d.job().Job.ID
	read := func(q client.LogQuery) string {
		t.Helper()
		r, err := d.c.JobLog(ctx, id, q)
		d.must(err)
		defer r.Close()
		b, err := io.ReadAll(r)
		d.must(err)
		return string(b)
	}
	if got := read(client.LogQuery{}); got != "" {
		t.Errorf("log before there is one: %q", got)
	}
	d.file(id, "agent.log", "one\ntwo\nthree\n")
	for _, tc := range []struct {
		q    client.LogQuery
		want string
	}{{client.LogQuery{}, "one\ntwo\nthree\n"}, {client.LogQuery{Offset: 4}, "two\nthree\n"}, {client.LogQuery{Tail: 1}, "three\n"}, {client.LogQuery{Offset: 99}, ""}} {
		if got := read(tc.q); got != tc.want {
			t.Errorf("%+v: %q", tc.q, got)
		}
	}
	j, err := d.c.Job(ctx, id, 0)
	if err != nil || j.LogBytes != 14 {
		t.Errorf("log bytes %d, %v", j.LogBytes, err)
	}
	_, err = d.c.JobLog(ctx, "job_none", client.LogQuery{})
	wantClass(t, "unknown job", err, fault.NotFound)
}

// The log is followed across a restart of the daemon, from before its first
// byte to after its last, each byte once.
func TestFollowLogAcrossARestart(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	id := d.job().Job.ID
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := d.c.FollowLog(ctx, id, client.LogQuery{}, pw)
		done <- err
		_ = pw.CloseWithError(io.EOF)
	}()
	d.file(id, "agent.log", "first\n")
	buf := make([]byte, 6)
	if _, err := io.ReadFull(pr, buf); err != nil || string(buf) != "first\n" {
		t.Fatalf("%q, %v", buf, err)
	}
	d.must(d.stop())
	d.file(id, "agent.log", "second\n")
	d.restart()
	d.jobTo(id, lab.JobRunning, -1)
	rest := make(chan string, 1)
	go func() { b, _ := io.ReadAll(pr); rest <- string(b) }()
	time.Sleep(300 * time.Millisecond)
	d.file(id, "agent.log", "last\n")
	d.jobTo(id, lab.JobCompleted, 0)
	if got := <-rest; got != "second\nlast\n" {
		t.Errorf("got %q", got)
	}
	d.must(<-done)
}

func TestArtifacts(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	id := d.job().Job.ID
	_, err := d.c.ArtifactArchive(ctx, id)
	wantClass(t, "no artifacts", err, fault.NotFound)
	want := map[string]string{"report.json": "{}", "out/a b#?%.txt": "hello", "agent.log": "line\n"}
	d.artifact(id, "report.json", want["report.json"])
	d.artifact(id, "out/a b#?%.txt", want["out/a b#?%.txt"])
	d.file(id, "agent.log", want["agent.log"]) // no row: the guest was lost
	d.file(id, "not-recorded", "x")
	list, err := d.c.Artifacts(ctx, id)
	d.must(err)
	var paths []string
	for _, a := range list {
		paths = append(paths, a.Path)
		if a.File != filepath.Join(d.artifacts, id, a.Path) {
			t.Errorf("file %q", a.File)
		}
		r, err := d.c.Artifact(ctx, id, a.Path)
		d.must(err)
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || string(b) != want[a.Path] {
			t.Errorf("%s: %q, %v", a.Path, b, err)
		}
	}
	if diff := cmp.Diff([]string{"agent.log", "out/a b#?%.txt", "report.json"}, paths); diff != "" {
		t.Error(diff)
	}
	for _, p := range []string{"not-recorded", "out", "nope", "%2e%2e/" + id + "/report.json"} {
		_, err := d.c.Artifact(ctx, id, p)
		wantClass(t, p, err, fault.NotFound)
	}
	if _, err := d.c.Artifact(ctx, id, "../"+id+"/report.json"); err == nil {
		t.Error("a path that leaves its directory was answered")
	}
	r, err := d.c.ArtifactArchive(ctx, id)
	d.must(err)
	defer r.Close()
	zr, err := gzip.NewReader(r)
	d.must(err)
	got := map[string]string{}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		d.must(err)
		b, err := io.ReadAll(tr)
		d.must(err)
		got[h.Name] = string(b)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	resp := d.raw("GET", "/v1/jobs/"+id+"/artifacts/report.json", "")
	if h := resp.Header; h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") || h.Get("Etag") != `"00ff"` {
		t.Errorf("header %v", h)
	}
}

func TestEventsResumeAndFilter(t *testing.T) {
	d := newDaemon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, b := d.job(), d.job()
	zero := int64(0)
	var all []int64
	for e, err := range d.c.Events(ctx, client.EventQuery{After: &zero}) {
		d.must(err)
		all = append(all, e.ID)
		if e.JobID == b.Job.ID && e.Type == lab.EventJobQueued {
			break
		}
	}
	if len(all) < 4 {
		t.Fatalf("events %v", all)
	}
	live := make(chan api.Event, 10)
	go func() {
		defer close(live)
		for e, err := range d.c.Events(ctx, client.EventQuery{JobID: a.Job.ID, Types: []string{lab.EventJobChanged}}) {
			if err != nil {
				return
			}
			live <- e
		}
	}()
	time.Sleep(100 * time.Millisecond)
	d.jobTo(b.Job.ID, lab.JobRunning, -1) // not asked for
	d.jobTo(a.Job.ID, lab.JobRunning, -1)
	if e := <-live; e.JobID != a.Job.ID || e.Fields["to"] != "RUNNING" {
		t.Errorf("event %+v", e)
	}
	// The daemon is away while something happens: the stream goes on behind it.
	d.must(d.stop())
	d.jobTo(a.Job.ID, lab.JobFailed, 1)
	d.restart()
	if e := <-live; e.JobID != a.Job.ID || e.Fields["to"] != "FAILED" {
		t.Errorf("event after the restart %+v", e)
	}
	cancel()
	if _, more := <-live; more {
		t.Error("an event came twice")
	}
	resp := d.raw("GET", "/v1/events", "", "Last-Event-ID", "x")
	if resp.StatusCode != 400 {
		t.Errorf("bad Last-Event-ID: %d", resp.StatusCode)
	}
}

// Streams do not hold the daemon up when it stops.
func TestServeEndsWithOpenStreams(t *testing.T) {
	d := newDaemon(t)
	id := d.job().Job.ID
	events := d.raw("GET", "/v1/events", "")
	log := d.raw("GET", "/v1/jobs/"+id+"/log?follow=true", "")
	long := make(chan int, 1)
	go func() { long <- d.raw("GET", "/v1/jobs/"+id+"?wait=5m", "").StatusCode }()
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	d.must(d.stop())
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("stopping took %s", took)
	}
	b, err := io.ReadAll(events.Body)
	if !bytes.HasPrefix(b, []byte("id: ")) { // where to resume if this is cut at once
		t.Errorf("events began with %q", b)
	}
	if err != nil || !bytes.HasSuffix(b, []byte(": the daemon stops\n\n")) {
		t.Errorf("events ended with %q, %v", b, err)
	}
	if _, err := io.ReadAll(log.Body); err == nil {
		t.Error("a followed log of a running job ended as if it were whole")
	}
	if status := <-long; status != 200 {
		t.Errorf("a waiting call ended with %d", status)
	}
}

func TestSandboxStream(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	defer ln.Close()
	go func() { // a server that speaks first and answers after the end of input
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
				b, _ := io.ReadAll(c)
				_, _ = fmt.Fprintf(c, "got %d", len(b))
			}()
		}
	}()
	d.world.target = ln.Addr().String()
	made, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "box"})
	d.must(err)
	sb := d.reserve(made.Sandbox.ID)
	_, err = d.c.DialSandbox(ctx, "box", 22)
	wantClass(t, "not ready", err, fault.Precondition)
	d.ready(sb.ID)
	_, err = d.c.DialSandbox(ctx, "box", 8006)
	wantClass(t, "other port", err, fault.Unsupported)
	conn, err := d.c.DialSandbox(ctx, "box", 22)
	d.must(err)
	defer conn.Close()
	if d.world.dialled.Addr() != sb.Address || d.world.dialled.Port() != 22 {
		t.Errorf("dialled %s", d.world.dialled)
	}
	banner := make([]byte, 11)
	if _, err := io.ReadFull(conn, banner); err != nil || string(banner) != "SSH-2.0-x\r\n" {
		t.Fatalf("%q, %v", banner, err)
	}
	payload := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := conn.Write(payload); err != nil {
		t.Fatal(err)
	}
	d.must(conn.(interface{ CloseWrite() error }).CloseWrite())
	if b, err := io.ReadAll(conn); err != nil || string(b) != fmt.Sprintf("got %d", len(payload)) {
		t.Errorf("%q, %v", b, err)
	}
	ends := func(box, what string, cause func()) {
		t.Helper()
		open, err := d.c.DialSandbox(ctx, box, 22)
		d.must(err)
		defer open.Close()
		_, err = io.ReadFull(open, banner)
		d.must(err)
		cause()
		d.must(open.SetReadDeadline(time.Now().Add(5 * time.Second)))
		if _, err := io.ReadAll(open); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the stream outlived the %s", what)
		}
	}
	ends("box", "daemon", func() { d.must(d.stop()) })
	d.restart()
	for _, to := range []lab.SandboxState{lab.SandboxFailed, lab.SandboxStopped, lab.SandboxDestroyed} {
		made, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: strings.ToLower(string(to))})
		d.must(err)
		d.reserve(made.Sandbox.ID)
		d.ready(made.Sandbox.ID)
		ends(made.Sandbox.Name, strings.ToLower(string(to)), func() { d.sandboxTo(made.Sandbox.ID, to) })
	}
}

func archive(t *testing.T, first string, size int) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, err := range []error{
		tw.WriteHeader(&tar.Header{Name: first, Size: int64(size), Mode: 0o644, Typeflag: tar.TypeReg}),
		func() error { _, err := tw.Write(make([]byte, size)); return err }(), tw.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

// An upload can be taken back until a job has it; nothing but uploads can.
func TestUploadIsTakenBack(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	files := func() int {
		t.Helper()
		entries, err := os.ReadDir(d.repos)
		d.must(err)
		return len(entries)
	}
	upload := func() string {
		t.Helper()
		repo, err := d.c.UploadRepo(ctx, bytes.NewReader(archive(t, "meta.json", 10)))
		d.must(err)
		return repo.ID
	}
	unused, used := upload(), upload()
	_, err := d.c.CreateJob(ctx, api.JobCreate{Profile: "good", Task: "t", RepoID: used})
	d.must(err)
	d.must(os.WriteFile(filepath.Join(d.repos, ".part-1"), nil, 0o600)) // another's, under way
	d.must(d.c.DeleteRepo(ctx, unused))
	if files() != 2 {
		t.Errorf("%d files are left, want the job's and the one under way", files())
	}
	wantClass(t, "again", d.c.DeleteRepo(ctx, unused), fault.NotFound)
	wantClass(t, "the job's", d.c.DeleteRepo(ctx, used), fault.Precondition)
	wantClass(t, "no upload", d.c.DeleteRepo(ctx, ".part-1"), fault.NotFound)
	wantClass(t, "path", d.c.DeleteRepo(ctx, "../agentlab.db"), fault.NotFound)
	if files() != 2 {
		t.Errorf("%d files are left after refusals", files())
	}
	_, err = d.c.CreateJob(ctx, api.JobCreate{Profile: "good", Task: "t", RepoID: unused})
	wantClass(t, "job with what was taken back", err, fault.Invalid)
}

func TestUploadRepo(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	body := archive(t, "meta.json", 3<<20)
	repo, err := d.c.UploadRepo(ctx, bytes.NewReader(body))
	d.must(err)
	stored, err := os.ReadFile(filepath.Join(d.repos, repo.ID))
	if err != nil || !bytes.Equal(stored, body) || repo.Size != int64(len(body)) {
		t.Errorf("stored %d bytes of %d, %v", len(stored), len(body), err)
	}
	a, err := d.c.CreateJob(ctx, api.JobCreate{Profile: "good", Task: "t", RepoID: repo.ID})
	if err != nil || a.Job.Repo != repo.ID {
		t.Errorf("job %+v, %v", a.Job, err)
	}
	_, err = d.c.UploadRepo(ctx, strings.NewReader("not a tar"))
	wantClass(t, "no archive", err, fault.Invalid)
	_, err = d.c.UploadRepo(ctx, bytes.NewReader(archive(t, "../evil", 10)))
	wantClass(t, "another archive", err, fault.Invalid)
	broken := errors.New("git failed")
	_, err = d.c.UploadRepo(ctx, io.MultiReader(bytes.NewReader(body[:1<<20]), iotestErr{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("the cause of a cut upload is lost: %v", err)
	}
	conn, err := net.Dial("unix", d.socket)
	d.must(err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /v1/repos HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", api.MaxRepo+1)
	d.must(err)
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 413" {
		t.Errorf("over quota: %q, %v", head, err)
	}
	waitFor(t, func() bool { // the cut one is removed when the server notices
		entries, err := os.ReadDir(d.repos)
		return err == nil && len(entries) == 1
	})
}

type iotestErr struct{ err error }

func (r iotestErr) Read([]byte) (int, error) { return 0, r.err }

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("did not come true in 2 s")
}
