package guest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agentlab/agentlab/core/guest"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

func (h *host) read(job, path string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.artifacts, job, path))
	h.must(err)
	return string(b)
}

// files lists all regular files below the artifacts directory.
func (h *host) files() (names []string) {
	h.t.Helper()
	h.must(filepath.WalkDir(h.artifacts, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(h.artifacts, p)
			names = append(names, rel)
		}
		return err
	}))
	return names
}

func TestLogByOffset(t *testing.T) {
	h := newHost(t, guest.Limits{LogBytes: 20})
	sb := h.addSandbox()
	sb.mustFetch()
	for _, step := range []struct {
		offset     int
		chunk      string
		wantOffset int64
		wantStatus int
	}{
		{0, "hello ", 6, 200},
		{0, "hello ", 6, 409}, // resent after a lost answer
		{9, "gap", 6, 409},
		{6, "world\n", 12, 200},
		{12, "0123456789", 20, 413}, // the part that fits is kept
		{20, "more", 20, 413},
	} {
		got, status, err := sb.log(sb.job, step.offset, step.chunk)
		if err != nil || got != step.wantOffset || status != step.wantStatus {
			t.Errorf("%+v: offset %d, status %d, %v", step, got, status, err)
		}
	}
	if got := h.read(sb.job, "agent.log"); got != "hello world\n01234567" {
		t.Errorf("log is %q", got)
	}
	_, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportFinished, Status: "failed", ExitCode: 3})
	h.must(err)
	rows, err := h.store.Artifacts(t.Context(), sb.job)
	h.must(err)
	sum := sha256.Sum256([]byte("hello world\n01234567"))
	if len(rows) != 1 || rows[0].Path != "agent.log" || rows[0].SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("the log's row: %+v", rows)
	}
	_, status, err := sb.log(sb.job, 20, "late")
	if status != http.StatusPreconditionFailed {
		t.Errorf("a job that is over took more: %d, %v", status, err)
	}
}

func TestLongestChunk(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	_, _, err := sb.log(sb.job, 0, strings.Repeat("x", 512<<10+1))
	wantClass(t, err, fault.Invalid)
	if at, _, err := sb.log(sb.job, 0, strings.Repeat("x", 512<<10)); err != nil || at != 512<<10 {
		t.Errorf("at %d, %v", at, err)
	}
}

func TestHostHidesSecretsTheRunnerMissed(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	chunk := "before bot-user large-model AAAAB3publickey\nkey=" + planted + " x\ngit-token-value\nanother-secret-value\nclaude-env-value!\nafter\n"
	got, _, err := sb.log(sb.job, 0, chunk)
	h.must(err)
	log := h.read(sb.job, "agent.log")
	if int(got) != len(chunk) || len(log) != len(chunk) || strings.Count(log, "\n") != strings.Count(chunk, "\n") {
		t.Errorf("offsets moved: %d of %d, %q", got, len(chunk), log)
	}
	for _, value := range []string{planted, "git-token-value", "another-secret-value", "claude-env-value"} {
		if strings.Contains(log, value) {
			t.Errorf("log holds %s", value)
		}
	}
	if !strings.HasPrefix(log, "before bot-user large-model AAAAB3publickey\n[REDACTED]") || !strings.HasSuffix(log, "\nafter\n") {
		t.Errorf("too much was hidden: %q", log)
	}
	_, err = sb.report(guestapi.Report{
		Job: sb.job, Kind: guestapi.ReportFinished, Status: "failed", ExitCode: 999, Message: "cannot push with " + planted + "\n\x1b[31mred",
	})
	h.must(err)
	j, err := h.store.Job(t.Context(), sb.job)
	h.must(err)
	if m := j.Reported.Message; m != "cannot push with [REDACTED] [31mred" || j.Reported.ExitCode != 255 {
		t.Errorf("report %+v", j.Reported)
	}
	events, err := h.store.Events(t.Context(), state.EventFilter{})
	h.must(err)
	if s := fmt.Sprintf("%+v", events); strings.Contains(s, planted) {
		t.Error("an event holds the secret")
	}
}

func TestRedactionOutlivesTheDaemon(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	h.serve(guest.Limits{DiskFloor: 1})

	h.bundles.fail(fault.New(fault.Unavailable, "the plugin is starting"))
	if _, status, err := sb.log(sb.job, 0, planted); status != http.StatusServiceUnavailable {
		t.Errorf("a log that cannot be redacted yet was answered %d, %v", status, err)
	}
	h.bundles.fail(nil)
	_, _, err := sb.log(sb.job, 0, planted+"\n")
	h.must(err)
	if log := h.read(sb.job, "agent.log"); !strings.HasPrefix(log, "[REDACTED]") || strings.Contains(log, planted) {
		t.Errorf("log is %q", log)
	}

	h.serve(guest.Limits{DiskFloor: 1})
	h.bundles.fail(fault.New(fault.NotFound, "the bundle was rotated away"))
	_, _, err = sb.log(sb.job, len(planted)+1, "goes on\n")
	h.must(err)
}

// The host cannot look into commits, so what the guest found there is kept, fit
// to be shown; what the host found is not undone by a guest's silence.
func TestFlaggedByTheGuest(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	for i, c := range []struct{ said, body, want string }{
		{"holds it: commit 1, x\n\x1b[31m" + planted, "pack", "holds it: commit 1, x [31m[REDACTED]"},
		{"", planted, guestapi.FlaggedSecret},
		{" \n", "pack", ""},
		{strings.Repeat("x", 5000), "pack", strings.Repeat("x", 1024)},
	} {
		name := fmt.Sprint("f", i)
		query := url.Values{"job": {sb.job}, "path": {name}, "flagged": {c.said}}
		_, err := sb.call(http.MethodPost, guestapi.UploadPath+"?"+query.Encode(), []byte(c.body), nil)
		h.must(err)
		rows, err := h.store.Artifacts(t.Context(), sb.job)
		h.must(err)
		if got := rows[len(rows)-1]; got.Path != name || got.Flagged != c.want {
			t.Errorf("%q gives %+v, want %q", c.said, got, c.want)
		}
	}
}

func TestUpload(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	for _, body := range []string{"first version, longer", "second"} {
		got, status, err := sb.upload(sb.job, "./out//report.json", []byte(body))
		sum := sha256.Sum256([]byte(body))
		if want := (guestapi.UploadReply{Path: "out/report.json", Size: int64(len(body)), SHA256: hex.EncodeToString(sum[:])}); err != nil || got != want {
			t.Fatalf("%+v, status %d, %v", got, status, err)
		}
	}
	if got := h.read(sb.job, "out/report.json"); got != "second" {
		t.Errorf("file is %q", got)
	}
	rows, err := h.store.Artifacts(t.Context(), sb.job)
	h.must(err)
	if len(rows) != 1 || rows[0].Size != 6 || rows[0].Flagged != "" {
		t.Errorf("rows %+v", rows)
	}
	_, _, err = sb.upload(sb.job, "out", []byte("x")) // a directory is there
	wantClass(t, err, fault.Conflict)
	_, _, err = sb.upload(sb.job, "out/report.json/x", []byte("x")) // a file is there
	wantClass(t, err, fault.Conflict)
	// The value is cut in two by the reader's first 512 bytes.
	_, _, err = sb.upload(sb.job, "leak.txt", []byte(strings.Repeat("x", 505)+planted))
	h.must(err)
	_, _, err = sb.upload(sb.job, "empty", []byte{})
	h.must(err)
	rows, err = h.store.Artifacts(t.Context(), sb.job)
	h.must(err)
	for _, a := range rows {
		if (a.Flagged != "") != (a.Path == "leak.txt") {
			t.Errorf("flagged: %+v", a)
		}
	}
	for _, name := range h.files() {
		if strings.HasPrefix(name, ".parts") {
			t.Errorf("%s was left", name)
		}
	}
}

func TestUploadRefusesPaths(t *testing.T) {
	h := newHost(t, guest.Limits{})
	a, b := h.addSandbox(), h.addSandbox()
	a.mustFetch()
	b.mustFetch()
	_, _, err := a.upload(a.job, "x", []byte("mine"))
	h.must(err)
	for _, p := range []string{
		"", ".", "/", "/etc/passwd", "..", "../" + a.job + "/x", "a/../../" + a.job + "/x", "a/..", "a\\b", "a\x00b", "a\nb", "\xff",
		"agent.log", "agent.log/x", "./agent.log", "agentlab-artifacts.tar.gz", strings.Repeat("a/", 40) + "x", strings.Repeat("x", 300),
		strings.Repeat("y/", 600),
	} {
		if _, _, err := b.upload(b.job, p, []byte("evil")); !errors.Is(err, fault.Invalid) {
			t.Errorf("path %.40q: %v", p, err)
		}
	}
	if got := h.files(); len(got) != 1 || h.read(a.job, "x") != "mine" {
		t.Errorf("files %v", got)
	}
}

// A symlink that somehow got into a job's directory leads nowhere outside.
func TestUploadDoesNotFollowLinksOut(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	outside := t.TempDir()
	h.must(os.MkdirAll(filepath.Join(h.artifacts, sb.job), 0o700))
	h.must(os.Symlink(outside, filepath.Join(h.artifacts, sb.job, "link")))
	if _, _, err := sb.upload(sb.job, "link/x", []byte("x")); err == nil {
		t.Error("upload through a link was taken")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside holds %v, %v", entries, err)
	}
}

func TestUploadQuotas(t *testing.T) {
	h := newHost(t, guest.Limits{FileBytes: 1000, JobBytes: 1500, Files: 3})
	sb := h.addSandbox()
	sb.mustFetch()
	put := func(path string, n int, chunked bool) int {
		t.Helper()
		var body io.Reader = bytes.NewReader(make([]byte, n))
		if chunked { // no Content-Length to refuse at once
			body = struct{ io.Reader }{body}
		}
		_, status, _ := sb.upload(sb.job, path, body)
		return status
	}
	for _, step := range []struct {
		path    string
		size    int
		chunked bool
		want    int
	}{
		{"a", 1001, false, 413},
		{"a", 1001, true, 413},
		{"a", 1000, true, 200},
		{"b", 501, true, 413},
		{"b", 500, false, 200},
		{"c", 1, true, 413},
		{"a", 10, true, 200}, // replacing makes room
		{"c", 1, true, 200},
		{"d", 1, true, 413},
		{"b", 2, true, 200},
	} {
		if got := put(step.path, step.size, step.chunked); got != step.want {
			t.Errorf("%+v: status %d", step, got)
		}
	}
	if got := h.files(); len(got) != 3 {
		t.Errorf("files %v", got)
	}
}

func TestUploadsInParallelKeepTheQuota(t *testing.T) {
	h := newHost(t, guest.Limits{FileBytes: 1000, JobBytes: 2500})
	sb := h.addSandbox()
	sb.mustFetch()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { _, _, _ = sb.upload(sb.job, fmt.Sprint("f", i), make([]byte, 1000)) })
	}
	wg.Wait()
	_, used, err := h.store.ArtifactUsage(t.Context(), sb.job)
	h.must(err)
	if used != 2000 {
		t.Errorf("%d bytes were taken, want 2000", used)
	}
}

func TestFreeSpaceFloor(t *testing.T) {
	h := newHost(t, guest.Limits{DiskFloor: 1 << 60})
	sb := h.addSandbox()
	sb.mustFetch()
	_, _, err := sb.upload(sb.job, "x", []byte("x"))
	wantClass(t, err, fault.Exhausted)
	_, _, err = sb.log(sb.job, 0, "x")
	wantClass(t, err, fault.Exhausted)
	if err != nil && strings.Contains(err.Error(), h.artifacts) {
		t.Errorf("the guest learns a path of the host: %v", err)
	}
}

func TestReportsReachTheJob(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	reply, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportStage, Stage: "clone"})
	h.must(err)
	h.must(h.store.RequestCancel(t.Context(), sb.job))
	after, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportHeartbeat})
	h.must(err)
	if reply.Cancel || !after.Cancel {
		t.Errorf("cancel %v, then %v", reply.Cancel, after.Cancel)
	}
	for _, bad := range []guestapi.Report{
		{Job: sb.job, Kind: "nonsense"},
		{Job: sb.job, Kind: "stage", Stage: "Not A Word"},
		{Job: sb.job, Kind: "finished", Status: "great"},
		{Job: sb.job, Kind: "finished", Status: "completed", Commit: "--upload-pack"},
		{Kind: "finished", Status: "completed"},
	} {
		if _, err := sb.report(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	first := guestapi.Report{Job: sb.job, Kind: guestapi.ReportFinished, Status: "cancelled", ExitCode: 130, Uploaded: true}
	_, err = sb.report(first)
	h.must(err)
	_, err = sb.report(first) // resent after a lost answer
	h.must(err)
	_, err = sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportFinished, Status: "completed"})
	h.must(err)
	j, err := h.store.Job(t.Context(), sb.job)
	h.must(err)
	if j.Reported == nil || j.Reported.Status != "cancelled" || j.Stage != "clone" {
		t.Errorf("job %+v, report %+v", j, j.Reported)
	}
}

func TestRepo(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	status, _ := sb.call(http.MethodGet, guestapi.RepoPath+"?job="+sb.job, nil, nil)
	if status != http.StatusNotFound {
		t.Errorf("status %d for a job without an upload", status)
	}
	h.must(os.WriteFile(filepath.Join(h.repos, "repo_1"), bytes.Repeat([]byte("repo"), 1<<18), 0o600))
	h.must(h.store.PutRepo(t.Context(), state.Repo{ID: "repo_1", Size: 1 << 20}))
	withRepo := h.addSandboxWith(func(j *lab.Job) { j.RepoID = "repo_1" })
	withRepo.mustFetch()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.base+guestapi.RepoPath+"?job="+withRepo.job, nil)
	h.must(err)
	req.Header.Set("Authorization", "Bearer "+withRepo.credential)
	resp, err := withRepo.http.Do(req)
	h.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || len(b) != 1<<20 || resp.StatusCode != 200 {
		t.Errorf("status %d, %d bytes, %v", resp.StatusCode, len(b), err)
	}
}
