package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/repotask"
	"github.com/agentlab/agentlab/core/guestapi"
)

// The test program stands in for agent-runner where that starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == repotask.Subcommand {
		os.Exit(dispatch(context.Background(), os.Args))
	}
	os.Exit(m.Run())
}

const planted = `{"version":1,"env":{"API_KEY":"planted-secret"},"git":{"token":"planted-token"}}`

// host gives out one job with secrets, and answers with after once that is over.
type host struct {
	after  func(w http.ResponseWriter)
	during func() // called when the job begins

	mu sync.Mutex
	// mu guards:
	over  bool
	log   int64
	idles int // heartbeats without a job
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch r.URL.Path {
	case guestapi.FetchPath:
		if h.over {
			h.after(w)
			return
		}
		_ = json.NewEncoder(w).Encode(guestapi.Payload{Sandbox: "sbx_1", Secrets: json.RawMessage(planted), Job: &guestapi.Job{
			ID: "job_1", RepoURL: "http://127.0.0.1:1/none", TTL: time.Minute, LogMaxBytes: 1 << 20, UploadMaxBytes: 1 << 20,
		}})
	case guestapi.ReportPath:
		var rep guestapi.Report
		_ = json.Unmarshal(body, &rep)
		switch {
		case rep.Kind == guestapi.ReportFinished:
			h.over = true
		case rep.Stage == "clone":
			h.during()
		case rep.Job == "":
			h.idles++
		}
		_, _ = io.WriteString(w, "{}")
	case guestapi.LogPath:
		h.log += int64(len(body))
		_ = json.NewEncoder(w).Encode(guestapi.LogReply{Offset: h.log})
	default:
		_, _ = io.WriteString(w, "{}")
	}
}

// TestSecretsAfterTheJob: a sandbox that outlives its job keeps what the host
// gives it then, and nothing else.
func TestSecretsAfterTheJob(t *testing.T) {
	for name, c := range map[string]struct {
		after func(w http.ResponseWriter)
		stay  bool
	}{
		"its own job":    {func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"sandbox":"sbx_1"}`) }, false},
		"a borrowed job": {func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"sandbox":"sbx_1","secrets":`+planted+`}`) }, true},
		"refused":        {func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := layout.Layout{Root: t.TempDir()}
			h := &host{after: c.after}
			h.during = func() {
				if got := secretsIn(t, l); !strings.Contains(got, "planted-secret") || !strings.Contains(got, "planted-token") {
					t.Errorf("secrets during the job: %q", got)
				}
			}
			srv := httptest.NewServer(h)
			defer srv.Close()
			for path, text := range map[string]string{
				"/etc/passwd":                       "agent:x:0:0::/home/agent:/bin/sh\n",
				"/etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA x",
				"/etc/agentlab/bootstrap.json":      `{"token":"t","controller":"` + srv.URL + `"}`,
				"/home/agent/.profile":              "",
			} {
				if err := errors.Join(os.MkdirAll(filepath.Dir(l.At(path)), 0o755), os.WriteFile(l.At(path), []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			served := make(chan error, 1)
			go func() { served <- serve(ctx, l, hclog.NewNullLogger()) }()
			for idles := 0; idles == 0 && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				h.mu.Lock()
				idles = h.idles
				h.mu.Unlock()
			}
			if ctx.Err() != nil {
				t.Error("the sandbox is not idle after its job")
			}
			if got := secretsIn(t, l); strings.Contains(got, "planted") != c.stay {
				t.Errorf("secrets after the job: %q", got)
			}
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// secretsIn is all that is in the directory for secrets.
func secretsIn(t *testing.T, l layout.Layout) string {
	t.Helper()
	var all strings.Builder
	entries, err := os.ReadDir(l.Secrets())
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(l.Secrets(), e.Name()))
		if err != nil {
			t.Error(err)
		}
		all.Write(b)
	}
	return all.String()
}
