package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	hostAddress  = "127.77.0.1"
	guestAddress = "127.77.0.12"
	token        = "the-only-token"
)

// host is the other side of the guest API.
type host struct {
	t   *testing.T
	url string

	mu         sync.Mutex
	job        *job
	ttl        time.Duration
	credential string
	fetches    int
	clones     int
	conflicts  int    // chunks of the log that were said twice
	refused    string // job whose reports are refused
	log        bytes.Buffer
	logLimit   int
	files      map[string][]byte
	reports    []report
	cancel     bool
	outage     int // answers that are lost after the work was done
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, ttl: time.Minute, files: map[string][]byte{}, logLimit: 64 << 20}
	l, err := net.Listen("tcp", hostAddress+":0")
	if err != nil {
		t.Skipf("needs the address %s on loopback: %v", hostAddress, err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Second}}
	srv.Start()
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	if from, _, _ := net.SplitHostPort(r.RemoteAddr); from != guestAddress {
		h.t.Errorf("a call came from %s", from)
	}
	bearer := r.Header.Get("Authorization")
	if r.URL.Path != fetchPath && bearer != "Bearer "+h.credential {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	answer, status := h.answer(r, body, bearer)
	if h.outage > 0 {
		h.outage--
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func (h *host) answer(r *http.Request, body []byte, bearer string) (any, int) {
	switch r.URL.Path {
	case fetchPath:
		var req fetchRequest
		_ = json.Unmarshal(body, &req)
		bound := h.credential != "" && (req.Credential == h.credential || bearer == "Bearer "+h.credential)
		if h.credential == "" && req.Token == token {
			h.credential, bound = req.Credential, true
		}
		if !bound {
			return nil, http.StatusForbidden
		}
		h.fetches++
		return payload{Sandbox: "sbx_a", Job: h.job, Secrets: json.RawMessage(`{"env":{"KEY":"hunter2"}}`)}, http.StatusOK
	case reportPath:
		var rep report
		_ = json.Unmarshal(body, &rep)
		h.reports = append(h.reports, rep)
		if rep.Job != "" && rep.Job == h.refused {
			return nil, http.StatusForbidden
		}
		if rep.Kind == finished && h.job != nil && rep.Job == h.job.ID {
			h.job = nil // it is over
		}
		return reportReply{Cancel: h.cancel, Fetch: rep.Job == "" && h.job != nil}, http.StatusOK
	case repoPath:
		h.clones++
		return nil, http.StatusOK
	case logPath:
		offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		if offset != h.log.Len() {
			h.conflicts++
			return logReply{Offset: int64(h.log.Len())}, http.StatusConflict
		}
		if offset+len(body) > h.logLimit {
			return nil, http.StatusRequestEntityTooLarge
		}
		h.log.Write(body)
		return logReply{Offset: int64(h.log.Len())}, http.StatusOK
	case uploadPath:
		h.files[r.URL.Query().Get("path")] = body
		return nil, http.StatusOK
	}
	return nil, http.StatusOK
}

func (h *host) do(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn()
}

// final waits for the last word about the job.
func (h *host) final() report {
	h.t.Helper()
	var out report
	h.wait("the final report", func() bool {
		for _, r := range h.reports {
			if r.Kind == finished {
				out = r
				return true
			}
		}
		return false
	})
	return out
}

func (h *host) wait(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		done := false
		h.do(func() { done = ok() })
		if done {
			return
		}
		if time.Now().After(deadline) {
			h.do(func() { h.t.Fatalf("waited in vain for %s; reports %+v, log %.200q", what, h.reports, h.log.String()) })
		}
	}
}

// house is a world with one machine that is on, and its crowd.
type house struct {
	t     *testing.T
	world *world.World
	stop  func()
}

func newHouse(t *testing.T, h *host, task string) *house {
	t.Helper()
	if task != "" {
		h.job = &job{ID: "job_1", Task: task, TTL: h.ttl}
	}
	w, err := world.Open(filepath.Join(t.TempDir(), "world"), nil)
	if err != nil {
		t.Fatal(err)
	}
	boot, _ := json.Marshal(bootstrap{Token: token, Controller: h.url, VMID: 1012, Sandbox: "sbx_a"})
	files, _ := json.Marshal(map[string]any{"write_files": []any{map[string]string{"path": bootstrapFile, "content": string(boot)}}})
	vm := world.VM{VMID: 1012, Owner: "agentlab:h/sbx_a", Power: hypervisor.PowerOn, Boot: 1}
	vm.NIC.AddressCIDR = guestAddress + "/16"
	vm.Seed.UserData = append([]byte("#cloud-config\n"), files...)
	if err := w.Plant(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	hs := &house{t: t, world: w, stop: func() {}}
	hs.start()
	t.Cleanup(func() { hs.stop() })
	return hs
}

// start plays the guests anew, as a plugin that was started again.
func (hs *house) start() {
	hs.stop()
	crowd := NewCrowd(Config{World: hs.world, Heartbeat: 20 * time.Millisecond, Log: hclog.NewNullLogger()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = crowd.Run(ctx)
	}()
	hs.stop = func() {
		cancel()
		<-done
	}
}

func (hs *house) console() string {
	b, err := hs.world.Console(1012)
	if err != nil {
		hs.t.Fatal(err)
	}
	return string(b)
}

func (h *host) kinds() string {
	out := ""
	for _, r := range h.reports {
		if r.Kind == stage {
			out += fmt.Sprintf("%s ", r.Stage)
		}
	}
	return out
}
