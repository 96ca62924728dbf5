package jobrun_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/confine"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/jobrun"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/repotask"
	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/secret"
)

// The test program stands in for agent-runner where that starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == repotask.Subcommand {
		os.Exit(repotask.Main(context.Background(), os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

const planted = "planted-secret-value"

// prompt keeps a race build from sleeping a second at the end of each program.
const prompt = "GORACE=atexit_sleep_ms=0"

// fakeHost is a guest API that keeps what it is told.
type fakeHost struct {
	t      *testing.T
	server *httptest.Server

	mu      sync.Mutex
	repo    []byte
	log     []byte
	files   map[string]string
	flagged map[string]string // by path
	stages  []string
	final   *guestapi.Report
	beats   int
	cancel  bool
	refuse  func(r *http.Request) int // a status to answer instead
	cutRepo int                       // answers to cut
}

func newHost(t *testing.T) *fakeHost {
	h := &fakeHost{t: t, files: map[string]string{}, flagged: map[string]string{}}
	h.server = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.server.Close)
	return h
}

func (h *fakeHost) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		if status := h.refuse(r); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	switch r.URL.Path {
	case guestapi.RepoPath:
		w.Header().Set("Content-Length", strconv.Itoa(len(h.repo)))
		if h.cutRepo > 0 {
			h.cutRepo--
			w.Write(h.repo[:len(h.repo)/2])
			panic(http.ErrAbortHandler)
		}
		w.Write(h.repo)
	case guestapi.LogPath:
		if at, _ := strconv.Atoi(r.URL.Query().Get("offset")); at != len(h.log) {
			w.WriteHeader(http.StatusConflict)
		} else {
			h.log = append(h.log, body...)
		}
		json.NewEncoder(w).Encode(guestapi.LogReply{Offset: int64(len(h.log))})
	case guestapi.UploadPath:
		h.upload(w, r.URL.Query().Get("path"), string(body))
		h.flagged[r.URL.Query().Get("path")] = r.URL.Query().Get("flagged")
	case guestapi.ReportPath:
		h.report(w, body)
	}
}

// upload takes and refuses the same names as the real host.
func (h *fakeHost) upload(w http.ResponseWriter, raw, body string) {
	path, err := guestapi.CleanPath(raw)
	if err == nil && strings.Contains(path, planted) {
		err = errors.New("path of the file holds a secret")
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"detail": err.Error()})
		return
	}
	for other := range h.files {
		if strings.HasPrefix(other, path+"/") || strings.HasPrefix(path, other+"/") {
			w.WriteHeader(http.StatusConflict)
			return
		}
	}
	h.files[path] = body
	io.WriteString(w, "{}")
}

func (h *fakeHost) report(w io.Writer, body []byte) {
	var rep guestapi.Report
	if err := json.Unmarshal(body, &rep); err != nil {
		h.t.Error(err)
	}
	switch rep.Kind {
	case guestapi.ReportStage:
		h.stages = append(h.stages, rep.Stage)
	case guestapi.ReportFinished:
		h.final = &rep
	default:
		h.beats++
	}
	json.NewEncoder(w).Encode(guestapi.ReportReply{Cancel: h.cancel})
}

func (h *fakeHost) with(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// await waits until the log shows text.
func (h *fakeHost) await(text string) {
	h.t.Helper()
	for range 1000 {
		found := false
		h.with(func() { found = bytes.Contains(h.log, []byte(text)) })
		if found {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.with(func() { h.t.Fatalf("%q does not appear in the log:\n%s", text, h.log) })
}

// newGuest is a guest's file tree and a runner in it.
func newGuest(t *testing.T, h *fakeHost) *jobrun.Runner {
	t.Helper()
	l := layout.Layout{Root: t.TempDir()}
	for _, dir := range []string{"/workspace", "/home/agent", "/tmp", "/proc/sys/kernel/random", "/var/tmp"} {
		if err := os.MkdirAll(l.At(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	setBootID(t, l, "boot-1")
	login := layout.Login{Name: "agent", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Home: "/home/agent", Shell: "/bin/sh"}
	programs, err := confine.New(t.Context(), l, login)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	client := guestclient.New(h.server.URL, secret.New("cred"))
	t.Cleanup(client.Close)
	return &jobrun.Runner{
		Layout: l, Login: login, Host: client, Programs: programs, Exe: exe, Env: []string{"MY_KEY=" + planted, prompt},
		Redactor: secret.NewRedactor(secret.New(planted)), Secrets: []secret.Value{secret.New(planted)}, Beat: 20 * time.Millisecond, Grace: time.Second,
		UploadPatience: 20 * time.Second, Log: hclog.NewNullLogger(),
	}
}

func setBootID(t *testing.T, l layout.Layout, id string) {
	t.Helper()
	if err := os.WriteFile(l.At("/proc/sys/kernel/random/boot_id"), []byte(id+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// packed makes a repository with the given files and hands its archive to the
// host; it returns the repository's directory.
func (h *fakeHost) packed(files map[string]string) string {
	h.t.Helper()
	dir := filepath.Join(h.t.TempDir(), "origin")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "--quiet", "-b", "main"}, {"add", "-A"}, {"-c", "user.name=t", "-c", "user.email=t@e", "commit", "--quiet", "-m", "first"}} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			h.t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	var archive bytes.Buffer
	if _, err := gitrepo.Pack(h.t.Context(), dir, gitrepo.PackOptions{}, &archive); err != nil {
		h.t.Fatal(err)
	}
	h.repo = archive.Bytes()
	return dir
}

func job(command string) guestapi.Job {
	return guestapi.Job{
		ID: "job_1", Task: "do it", Profile: "p", Mode: "default", Command: command, TTL: time.Minute,
		LogMaxBytes: 1 << 20, UploadMaxBytes: 1 << 20, Attempt: 1,
	}
}

// check compares the last report.
func (h *fakeHost) check(status string, code int, message string, uploaded bool) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.final == nil {
		h.t.Fatal("no last report")
	}
	if h.final.Status != status || h.final.ExitCode != code || !strings.Contains(h.final.Message, message) || h.final.Uploaded != uploaded {
		h.t.Errorf("last report %+v, want %s %d %q uploaded %v\nlog:\n%s", *h.final, status, code, message, uploaded, h.log)
	}
}
