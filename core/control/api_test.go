package control_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestSandboxRoundTrip(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	made, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "box", TTLSeconds: 60})
	d.must(err)
	if made.Operation.Kind != "create-sandbox" || made.Sandbox.State != "PROVISIONING" || made.Sandbox.ExpiresAt == nil {
		t.Errorf("accepted %+v, %+v", made.Operation, made.Sandbox)
	}
	vmid := made.Sandbox.VMID
	for _, ref := range []string{"box", made.Sandbox.ID, fmt.Sprint(vmid)} {
		got, err := d.c.Sandbox(ctx, ref)
		if err != nil || got.ID != made.Sandbox.ID || got.Address != "10.77.0.2" && got.Address == "" {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	list, err := d.c.Sandboxes(ctx, client.SandboxQuery{})
	if err != nil || len(list) != 1 {
		t.Errorf("list %+v, %v", list, err)
	}
	list, err = d.c.Sandboxes(ctx, client.SandboxQuery{States: []string{"READY"}})
	if err != nil || len(list) != 0 {
		t.Errorf("ready ones: %+v, %v", list, err)
	}
	_, err = d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "box"})
	wantClass(t, "second of that name", err, fault.Exists)
	_, err = d.c.Sandbox(ctx, "nobody")
	wantClass(t, "unknown", err, fault.NotFound)
	gone, err := d.c.DestroySandbox(ctx, "box")
	d.must(err)
	again, err := d.c.DestroySandbox(ctx, "box")
	if err != nil || again.Operation.ID != gone.Operation.ID {
		t.Errorf("destroyed twice: %s and %s, %v", gone.Operation.ID, again.Operation.ID, err)
	}
	events, err := d.c.SandboxEvents(ctx, "box", 2)
	if err != nil || len(events) != 2 || events[0].ID >= events[1].ID {
		t.Errorf("events %+v, %v", events, err)
	}
	ops, err := d.c.Operations(ctx, client.OperationQuery{SandboxID: made.Sandbox.ID, Open: true})
	if err != nil || len(ops) != 2 || ops[0].Kind != "destroy-sandbox" {
		t.Errorf("operations %+v, %v", ops, err)
	}
}

// What cannot work is refused before there is any row.
func TestValidationComesBeforeRows(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	d.must(d.store.PutRepo(ctx, state.Repo{ID: "repo_used", UsedBy: "job_x"}))
	const url = "https://h/x.git"
	for name, tc := range map[string]struct {
		in       api.JobCreate
		want     fault.Class
		wantText string
	}{
		"unknown profile":  {api.JobCreate{Profile: "goood", Task: "t", RepoURL: url}, fault.Invalid, `no profile "goood"`},
		"unknown template": {api.JobCreate{Profile: "no-template", Task: "t", RepoURL: url}, fault.Invalid, `no template "windows"`},
		"broken template":  {api.JobCreate{Profile: "broken", Task: "t", RepoURL: url}, fault.Precondition, "no seed drive"},
		"unknown bundle":   {api.JobCreate{Profile: "no-bundle", Task: "t", RepoURL: url}, fault.Invalid, `no secrets bundle "other"`},
		"unknown network":  {api.JobCreate{Profile: "no-network", Task: "t", RepoURL: url}, fault.Unsupported, `"bridge"`},
		"open allow list":  {api.JobCreate{Profile: "bad-allow", Task: "t", RepoURL: url}, fault.Invalid, "0.0.0.0/0"},
		"missing agent":    {api.JobCreate{Profile: "codex", Task: "t", RepoURL: url}, fault.Invalid, "has no codex"},
		"empty task":       {api.JobCreate{Profile: "good", Task: " \n", RepoURL: url}, fault.Invalid, "task"},
		"no repository":    {api.JobCreate{Profile: "good", Task: "t"}, fault.Invalid, "repo_url"},
		"two repositories": {api.JobCreate{Profile: "good", Task: "t", RepoURL: url, RepoID: "x"}, fault.Invalid, "repo_url"},
		"password in URL":  {api.JobCreate{Profile: "good", Task: "t", RepoURL: "https://u:pw@h/x"}, fault.Invalid, "password"},
		"unknown upload":   {api.JobCreate{Profile: "good", Task: "t", RepoID: "repo_none"}, fault.Invalid, "repo_none"},
		"used upload":      {api.JobCreate{Profile: "good", Task: "t", RepoID: "repo_used"}, fault.Precondition, "job_x"},
		"ref is an option": {api.JobCreate{Profile: "good", Task: "t", RepoURL: url, Ref: "--x"}, fault.Invalid, "ref"},
		"bad mode":         {api.JobCreate{Profile: "good", Task: "t", RepoURL: url, Mode: "yolo"}, fault.Invalid, "mode"},
		"existing sandbox": {api.JobCreate{Profile: "good", Task: "t", RepoURL: url, Sandbox: "box"}, fault.Invalid, "neither profile nor keep"},
		"no profile":       {api.JobCreate{Task: "t", RepoURL: url}, fault.Invalid, "profile"},
		"long ttl":         {api.JobCreate{Profile: "good", Task: "t", RepoURL: url, TTLSeconds: 1 << 50}, fault.Invalid, "ttl"},
	} {
		_, err := d.c.CreateJob(ctx, tc.in)
		wantClass(t, name, err, tc.want)
		if err != nil && !strings.Contains(err.Error(), tc.wantText) {
			t.Errorf("%s: %q does not name %q", name, err, tc.wantText)
		}
	}
	_, err := d.c.CreateJob(ctx, api.JobCreate{Profile: "goood", Task: "t", RepoURL: url})
	if hint := fault.HintOf(err); !strings.Contains(hint, "good") {
		t.Errorf("hint %q does not list the profiles", hint)
	}
	for _, name := range []string{"1042", "Bad", "-x", "a_b"} {
		_, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: name})
		wantClass(t, "name "+name, err, fault.Invalid)
	}
	jobs, err := d.store.Jobs(ctx, state.JobFilter{})
	d.must(err)
	boxes, err := d.store.Sandboxes(ctx, state.SandboxFilter{All: true})
	d.must(err)
	if len(jobs)+len(boxes) != 0 {
		t.Fatalf("rows were made: %v %v", jobs, boxes)
	}
	for _, profile := range []string{"good", "by-vmid", "claude"} { // what must work
		_, err := d.c.CreateJob(ctx, api.JobCreate{Profile: profile, Task: "t", RepoURL: url})
		d.must(err)
	}
	_, err = d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "codex"}) // no agent runs in it
	d.must(err)
}

func TestTemplatesAreAskedOnceAndOutlastThePlugin(t *testing.T) {
	d := newDaemon(t)
	for range 3 {
		d.job()
	}
	if d.world.asked != 1 {
		t.Errorf("the plugin was asked %d times", d.world.asked)
	}
	_, err := d.c.CreateJob(t.Context(), api.JobCreate{Profile: "no-template", Task: "t", RepoURL: "https://h/x"})
	wantClass(t, "unknown template", err, fault.Invalid)
	if d.world.asked != 2 { // it may be new
		t.Errorf("the plugin was asked %d times", d.world.asked)
	}
	d.world.err = fault.New(fault.Unavailable, "plugin qemu is down")
	d.job()
	_, err = d.c.CreateJob(t.Context(), api.JobCreate{Profile: "no-template", Task: "t", RepoURL: "https://h/x"})
	wantClass(t, "unknown template, plugin down", err, fault.Unavailable)
}

func TestStatusWaitsForNoPlugin(t *testing.T) {
	d := newDaemon(t)
	d.world.block = make(chan struct{})
	defer close(d.world.block)
	blocked := make(chan error, 1)
	go func() {
		_, err := d.c.CreateSandbox(t.Context(), api.SandboxCreate{Profile: "good"})
		blocked <- err
	}()
	start := time.Now()
	st, err := d.c.Status(t.Context())
	d.must(err)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("status took %s", took)
	}
	if st.Version != "1.2.3" || st.DiskFreeBytes <= 0 || len(st.Plugins) != 1 {
		t.Errorf("status %+v", st)
	}
	if d := cmp.Diff([]string{"bad.hcl:3: unknown key"}, st.Problems); d != "" {
		t.Error(d)
	}
	wantClass(t, "create with a plugin that hangs", <-blocked, fault.Unavailable)
}

func TestStrictRequests(t *testing.T) {
	d := newDaemon(t)
	for name, tc := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		text               string
	}{
		"unknown field":      {"POST", "/v1/sandboxes", `{"profile":"good","colour":"red"}`, nil, 400, "colour"},
		"wrong type":         {"POST", "/v1/sandboxes", `{"profile":7}`, nil, 400, "profile"},
		"missing field":      {"POST", "/v1/sandboxes", `{}`, nil, 400, "profile"},
		"not JSON":           {"POST", "/v1/sandboxes", `profile: good`, nil, 400, "JSON"},
		"two values":         {"POST", "/v1/sandboxes", `{"profile":"good"}{}`, nil, 400, "JSON"},
		"form":               {"POST", "/v1/sandboxes", `a=b`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "form"},
		"too large":          {"POST", "/v1/sandboxes", `{"profile":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "larger"},
		"unknown parameter":  {"GET", "/v1/sandboxes?al=true", "", nil, 400, `"al"`},
		"bad number":         {"GET", "/v1/jobs?limit=many", "", nil, 400, "limit"},
		"number too big":     {"GET", "/v1/jobs?limit=100000", "", nil, 400, "limit"},
		"bad flag":           {"GET", "/v1/sandboxes?all=yes", "", nil, 400, "all"},
		"bad wait":           {"POST", "/v1/jobs/x/cancel?wait=3h", "", nil, 400, "wait"},
		"no such path":       {"GET", "/v2/status", "", nil, 404, "/v2/status"},
		"no such method":     {"PUT", "/v1/sandboxes/x", "", nil, 405, "PUT"},
		"stream, no upgrade": {"GET", "/v1/sandboxes/x/stream", "", nil, 426, "agentlab-stream"},
	} {
		resp := d.raw(tc.method, tc.path, tc.body, tc.header...)
		mt := resp.Header.Get("Content-Type")
		err := problem.Read(resp)
		if resp.StatusCode != tc.status || mt != api.ProblemType || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %d %s %v", name, resp.StatusCode, mt, err)
		}
	}
	if allow := d.raw("PUT", "/v1/sandboxes/x", "").Header.Get("Allow"); allow != "GET, DELETE" {
		t.Errorf("Allow is %q", allow)
	}
	err := problem.Read(d.raw("POST", "/v1/sandboxes", `{"profile":"good","colour":"red","size":1}`))
	if got := problem.DetailsOf(err); len(got) != 2 {
		t.Errorf("details %q", got)
	}
}

func TestCallsAreAudited(t *testing.T) {
	d := newDaemon(t)
	d.job()
	want := fmt.Sprintf("uid=%d", os.Getuid())
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "job-create") {
			if !strings.Contains(line, want) || !strings.Contains(line, "status=202") || !strings.Contains(line, "[INFO]") {
				t.Errorf("audit line %q", line)
			}
			return
		}
	}
	t.Errorf("no audit line in %s", d.log)
}

func TestWaitAnswersTheEnd(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	a := d.job()
	resp := d.raw("POST", "/v1/jobs/"+a.Job.ID+"/cancel?wait=50ms", "")
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Location") == "" {
		t.Errorf("still running: %d", resp.StatusCode)
	}
	done := make(chan int, 1)
	go func() { done <- d.raw("POST", "/v1/jobs/"+a.Job.ID+"/cancel?wait=20s", "").StatusCode }()
	waited := make(chan api.Job, 1)
	go func() {
		j, err := d.c.WaitJob(ctx, a.Job.ID)
		if err != nil {
			t.Error(err)
		}
		waited <- j
	}()
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	d.jobTo(a.Job.ID, lab.JobCancelled, 130)
	if status := <-done; status != http.StatusOK {
		t.Errorf("ended: %d", status)
	}
	if j := <-waited; j.State != "CANCELLED" || j.ExitCode == nil || *j.ExitCode != 130 {
		t.Errorf("job %+v", j)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the end was noticed after %s", took)
	}
	again, err := d.c.CancelJob(ctx, a.Job.ID)
	if err != nil || again.Job.State != "CANCELLED" {
		t.Errorf("asked again after the end: %+v, %v", again.Job, err)
	}
	d.endOperation(a.Operation.ID)
	op, err := d.c.WaitOperation(ctx, a.Operation.ID)
	if err != nil || op.State != "DONE" {
		t.Errorf("operation %+v, %v", op, err)
	}
}

func TestJobsListNewestFirst(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	first, second := d.job(), d.job()
	jobs, err := d.c.Jobs(ctx, client.JobQuery{})
	if err != nil || len(jobs) != 2 || jobs[0].ID != second.Job.ID {
		t.Errorf("jobs %+v, %v", jobs, err)
	}
	jobs, err = d.c.Jobs(ctx, client.JobQuery{Limit: 1})
	if err != nil || len(jobs) != 1 || jobs[0].ID != second.Job.ID {
		t.Errorf("newest job %+v, %v", jobs, err)
	}
	jobs, err = d.c.Jobs(ctx, client.JobQuery{SandboxID: first.Sandbox.ID})
	if err != nil || len(jobs) != 1 || jobs[0].ID != first.Job.ID {
		t.Errorf("the sandbox's job %+v, %v", jobs, err)
	}
	j, err := d.c.Job(ctx, first.Job.ID, 5)
	if err != nil || len(j.Events) == 0 || j.Repo != "https://git.example/x.git" || j.ExitCode != nil {
		t.Errorf("job %+v, %v", j, err)
	}
	_, err = d.c.Job(ctx, "job_none", 0)
	wantClass(t, "unknown job", err, fault.NotFound)
}

func TestSmallReads(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	d.must(d.c.Health(ctx))
	h, err := d.c.Host(ctx)
	if err != nil || h.AgentSubnet != "10.77.0.0/16" {
		t.Errorf("host %+v, %v", h, err)
	}
	ps, err := d.c.Plugins(ctx)
	if err != nil || len(ps) != 1 || ps[0].Name != "qemu" {
		t.Errorf("plugins %+v, %v", ps, err)
	}
	ps, err = d.c.CheckPlugins(ctx)
	if err != nil || len(ps) != 1 || ps[0].State != "degraded" {
		t.Errorf("plugins that were asked %+v, %v", ps, err)
	}
	list, err := d.c.Profiles(ctx)
	profiles := list.Items
	if err != nil || len(profiles) != len(d.world.specs) || profiles[0].Name != "bad-allow" || profiles[0].TTLSeconds != 3600 {
		t.Errorf("profiles %+v, %v", profiles, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := d.c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A request whose answer was lost is sent again: it makes nothing twice, also
// when both arrive at once.
func TestSentAgain(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	req := api.JobCreate{ID: lab.NewID("job"), Profile: "good", Task: "work", RepoURL: "https://example.org/r.git"}
	answers := make(chan api.Accepted, 4)
	for range cap(answers) {
		go func() {
			a, err := d.c.CreateJob(ctx, req)
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}()
	}
	first := <-answers
	for range cap(answers) - 1 {
		if a := <-answers; first.Job == nil || a.Job == nil || a.Job.ID != req.ID || a.Operation.ID != first.Operation.ID || a.Sandbox.ID != first.Sandbox.ID {
			t.Errorf("answers differ: %+v and %+v", first, a)
		}
	}
	jobs, err := d.c.Jobs(ctx, client.JobQuery{})
	if err != nil || len(jobs) != 1 {
		t.Errorf("jobs %+v, %v", jobs, err)
	}
	other := req
	other.Task = "something else"
	_, err = d.c.CreateJob(ctx, other)
	wantClass(t, "another request of that id", err, fault.Conflict)
	for _, id := range []string{"x", "job_", "sbx_aaaaaaaaaaaaaaaa", "job_AAAAAAAAAAAAAAAA", "job_aaaaaaaaaaaaaaa1", "job_../../../../aa"} {
		other.ID = id
		_, err = d.c.CreateJob(ctx, other)
		wantClass(t, "id "+id, err, fault.Invalid)
	}

	box := api.SandboxCreate{ID: lab.NewID("sbx"), Profile: "good", Name: "box"}
	made, err := d.c.CreateSandbox(ctx, box)
	d.must(err)
	again, err := d.c.CreateSandbox(ctx, box)
	if err != nil || again.Sandbox.ID != box.ID || again.Operation.ID != made.Operation.ID {
		t.Errorf("sent again: %+v, %v", again, err)
	}
	box.Name = "crate"
	_, err = d.c.CreateSandbox(ctx, box)
	wantClass(t, "another request of that id", err, fault.Conflict)
	_, err = d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "box"})
	wantClass(t, "another id, same name", err, fault.Exists)
}
