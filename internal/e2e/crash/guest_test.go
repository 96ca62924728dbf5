package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// inmate is what somebody inside a sandbox knows.
type inmate struct {
	address           netip.Addr
	token, credential string
	hostKey, jobID    string
}

// breakInto reads a running guest's disk and seed.
func breakInto(t *testing.T, s *testkit.Sim, job api.Job) inmate {
	t.Helper()
	sb := sandbox(t, s, job.SandboxID)
	vm := awaitGuest(t, s, sb.VMID)
	var disk struct {
		Credential string `json:"credential"`
		HostKey    string `json:"host_key"`
	}
	if err := s.World.LoadGuest(vm.VMID, &disk); err != nil {
		t.Fatal(err)
	}
	in := inmate{address: netip.MustParseAddr(sb.Address), credential: disk.Credential, hostKey: disk.HostKey, jobID: job.ID, token: tokenOf(t, vm)}
	if in.credential == "" || in.token == "" {
		t.Fatalf("the guest of VM %d holds no credential or its seed no token", vm.VMID)
	}
	return in
}

func tokenOf(t *testing.T, vm world.VM) string {
	t.Helper()
	parsed, err := seed.Parse(seed.Documents{
		UserData: vm.Seed.UserData, MetaData: vm.Seed.MetaData, NetworkConfig: vm.Seed.NetworkConfig,
	})
	if err != nil {
		t.Fatal(err)
	}
	var boot guestapi.Bootstrap
	for _, f := range parsed.User.WriteFiles {
		if f.Path == "/etc/agentlab/bootstrap.json" {
			if err := json.Unmarshal([]byte(f.Content), &boot); err != nil {
				t.Fatal(err)
			}
		}
	}
	return boot.Token
}

// call speaks to the guest API from an address; what is nil is left out.
func call(t *testing.T, s *testkit.Sim, from netip.Addr, credential, path string, query url.Values, body any) int {
	t.Helper()
	status, _ := ask(t, s, from, credential, path, query, body)
	return status
}

// ask is call with what was answered.
func ask(t *testing.T, s *testkit.Sim, from netip.Addr, credential, path string, query url.Values, body any) (int, []byte) {
	t.Helper()
	content, isBytes := body.([]byte)
	if !isBytes {
		var err error
		if content, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	target := url.URL{Scheme: "http", Host: s.Guests.String(), Path: path, RawQuery: query.Encode()}
	method := http.MethodPost
	if path == guestapi.RepoPath {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	c := http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// TestGuestsKeepToThemselves: whoever sits in a sandbox, with all it knows and
// even with another's credential, cannot act for the other sandbox.
func TestGuestsKeepToThemselves(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.Start(t)
	jobA := submit(t, s, api.JobCreate{Task: "sim:sleep=4s a"})
	jobB := submit(t, s, api.JobCreate{Task: "sim:sleep=4s b"})
	awaitJobState(t, s, jobA.ID, lab.JobRunning)
	awaitJobState(t, s, jobB.ID, lab.JobRunning)
	a, b := breakInto(t, s, jobA), breakInto(t, s, jobB)
	stranger := s.Subnet.Addr().Next().Next()
	made := strings.Repeat("A", 43)
	end := func(job string) guestapi.Report {
		return guestapi.Report{Job: job, Kind: guestapi.ReportFinished, Status: "failed", ExitCode: 66, Uploaded: true}
	}
	alive := guestapi.Report{Job: a.jobID, Kind: guestapi.ReportHeartbeat}
	fetch := func(token, credential, key string) guestapi.FetchRequest {
		return guestapi.FetchRequest{Token: token, Credential: credential, HostKey: key, BootID: "x", Runner: "x"}
	}
	file := url.Values{"job": {b.jobID}, "path": {"smuggled"}}
	chunk := url.Values{"job": {b.jobID}, "offset": {"0"}}

	if got := call(t, s, a.address, a.credential, guestapi.ReportPath, nil, alive); got != http.StatusOK {
		t.Fatalf("the sandbox's own sign of life is answered %d; the rest would show nothing", got)
	}
	for _, tc := range []struct {
		what             string
		from             netip.Addr
		credential, path string
		query            url.Values
		body             any
	}{
		{"no credential", a.address, "", guestapi.ReportPath, nil, end(a.jobID)},
		{"a made-up credential", a.address, made, guestapi.ReportPath, nil, end(a.jobID)},
		{"the token as credential", a.address, a.token, guestapi.ReportPath, nil, end(a.jobID)},
		{"another's credential", a.address, b.credential, guestapi.ReportPath, nil, end(b.jobID)},
		{"another's credential, own job", a.address, b.credential, guestapi.ReportPath, nil, end(a.jobID)},
		{"own credential, another's job", a.address, a.credential, guestapi.ReportPath, nil, end(b.jobID)},
		{"log of another's job", a.address, a.credential, guestapi.LogPath, chunk, []byte("forged\n")},
		{"upload to another's job", a.address, a.credential, guestapi.UploadPath, file, []byte("forged")},
		{"another's repository", a.address, a.credential, guestapi.RepoPath, url.Values{"job": {b.jobID}}, nil},
		{"another's payload", a.address, b.credential, guestapi.FetchPath, nil, fetch("", "", b.hostKey)},
		{"another's token", a.address, "", guestapi.FetchPath, nil, fetch(b.token, made, a.hostKey)},
		{"own token again", a.address, "", guestapi.FetchPath, nil, fetch(a.token, made, a.hostKey)},
		{"from an address that is nobody's", stranger, b.credential, guestapi.ReportPath, nil, end(b.jobID)},
		{"token and credential from nobody's address", stranger, "", guestapi.FetchPath, nil, fetch(b.token, b.credential, b.hostKey)},
	} {
		got := call(t, s, tc.from, tc.credential, tc.path, tc.query, tc.body)
		if got != http.StatusForbidden && got != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", tc.what, got)
		}
	}
	if denied := sandboxEvents(t, s, jobA.SandboxID, lab.EventGuestDenied); len(denied) == 0 {
		t.Error("no event tells of the refusals")
	}
	for _, j := range []api.Job{jobA, jobB} {
		ended := awaitJob(t, s, j.ID)
		log := jobLog(t, s, j.ID)
		if ended.State != string(lab.JobCompleted) || log != "the simulated agent begins\nthe simulated agent ends\n" || len(ended.Artifacts) != 2 {
			t.Errorf("job %s is %s, %q, artifacts %v, log %q", j.Task, ended.State, ended.Reason, ended.Artifacts, log)
		}
	}
	checkClean(t, s)
	if got := call(t, s, a.address, a.credential, guestapi.ReportPath, nil, alive); got != http.StatusForbidden && got != http.StatusUnauthorized {
		t.Errorf("the credential of a destroyed sandbox is answered %d", got)
	}
}
