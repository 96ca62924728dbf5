package control_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestCancelOperation(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	made, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "box"})
	d.must(err)
	for range 2 {
		a, err := d.c.CancelOperation(ctx, made.Operation.ID)
		if err != nil || a.Operation.ID != made.Operation.ID || !a.Operation.CancelRequested || a.Sandbox == nil || a.Job != nil {
			t.Errorf("cancelled: %+v, %v", a, err)
		}
	}
	// One for a job is cancelled as the job is.
	job := d.job()
	a, err := d.c.CancelOperation(ctx, job.Operation.ID)
	if err != nil || a.Job == nil || a.Job.ID != job.Job.ID {
		t.Errorf("cancelled: %+v, %v", a, err)
	}
	row, err := d.store.Job(ctx, job.Job.ID)
	if err != nil || !row.CancelRequested {
		t.Errorf("the job is not asked to stop: %+v, %v", row, err)
	}
	gone, err := d.c.DestroySandbox(ctx, "box")
	d.must(err)
	_, err = d.c.CancelOperation(ctx, gone.Operation.ID)
	wantClass(t, "a destruction", err, fault.Precondition)
	d.endOperation(gone.Operation.ID)
	_, err = d.c.CancelOperation(ctx, gone.Operation.ID)
	wantClass(t, "an ended one", err, fault.Precondition)
	if err != nil && !strings.Contains(err.Error(), "DONE") {
		t.Errorf("%v does not name the state", err)
	}
	_, err = d.c.CancelOperation(ctx, "op_none")
	wantClass(t, "an unknown one", err, fault.NotFound)
}

func TestOperationTellsItsSteps(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	made, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "box"})
	d.must(err)
	was, err := d.store.Operation(ctx, made.Operation.ID)
	d.must(err)
	now := was
	now.State, now.Step, now.StepIndex, now.Attempt = lab.OpRunning, "start-vm", 3, 2
	now.NotBefore = time.Now().Add(time.Minute)
	event := func(typ, step string, more ...string) lab.Event {
		e := lab.Event{Type: typ, SandboxID: made.Sandbox.ID, Operation: was.ID, Fields: map[string]string{"step": step}}
		for i := 0; i+1 < len(more); i += 2 {
			e.Fields[more[i]] = more[i+1]
		}
		return e
	}
	d.must(d.store.Commit(ctx, state.Commit{
		Operations: []state.OperationChange{{Was: was, Now: now}},
		Events: []lab.Event{
			event(lab.EventStepFinished, "attach-network", "took_ms", "7"),
			event(lab.EventStepStarted, "start-vm", "attempt", "2"), event(lab.EventStepFailed, "start-vm", "error", "busy"),
		},
	}))
	got, err := d.c.Operation(ctx, was.ID)
	d.must(err)
	want := []api.Step{
		{Name: "reserve", State: "done", Attempt: 1}, // with the commit of the request
		{Name: "attach-network", State: "done", Attempt: 1, TookMS: 7},
		{Name: "create-vm", State: "skipped"},
		{Name: "start-vm", State: "failed", Attempt: 2, Error: "busy"},
		{Name: "wait-hello", State: "pending"},
	}
	if diff := cmp.Diff(want, got.Steps); diff != "" || got.RetryAt == nil {
		t.Errorf("retry at %v, steps: %s", got.RetryAt, diff)
	}
}

func TestListingsOfWhatIsNotThere(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	a := d.job()
	d.reserve(a.Sandbox.ID)
	list, err := d.c.Operations(ctx, client.OperationQuery{SandboxID: a.Sandbox.Name, JobID: a.Job.ID})
	if err != nil || len(list) != 1 {
		t.Errorf("by name: %+v, %v", list, err)
	}
	_, err = d.c.Operations(ctx, client.OperationQuery{SandboxID: "none"})
	wantClass(t, "unknown sandbox", err, fault.NotFound)
	_, err = d.c.Operations(ctx, client.OperationQuery{JobID: "job_none"})
	wantClass(t, "unknown job", err, fault.NotFound)
	for _, err := range d.c.Events(ctx, client.EventQuery{JobID: "job_none"}) {
		wantClass(t, "events of an unknown job", err, fault.NotFound)
	}
}

func TestEventsFromAPlace(t *testing.T) {
	d := newDaemon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	start := time.Now().Add(-time.Hour)
	for i := range 10 {
		d.must(d.store.AppendEvent(ctx, lab.Event{At: start.Add(time.Duration(i) * time.Minute), Type: fmt.Sprintf("t.%d", i%2), Message: fmt.Sprint(i)}))
	}
	read := func(q client.EventQuery, most int) (got []string) {
		for e, err := range d.c.Events(ctx, q) {
			d.must(err)
			if got = append(got, e.Message); len(got) == most {
				break
			}
		}
		return got
	}
	for name, tc := range map[string]struct {
		q    client.EventQuery
		want []string
	}{
		"newest":           {client.EventQuery{Tail: 2}, []string{"8", "9"}},
		"newest of a type": {client.EventQuery{Tail: 2, Types: []string{"t.0"}}, []string{"6", "8"}},
		"more than are":    {client.EventQuery{Tail: 500, Types: []string{"t.1"}}, []string{"1", "3", "5", "7", "9"}},
		"since":            {client.EventQuery{Since: start.Add(7*time.Minute - time.Second)}, []string{"7", "8", "9"}},
		"since, exactly":   {client.EventQuery{Since: start.Add(7 * time.Minute)}, []string{"7", "8", "9"}},
		"since before all": {client.EventQuery{Since: start.Add(-time.Hour), Types: []string{"t.0"}}, []string{"0", "2", "4", "6", "8"}},
		"since after all":  {client.EventQuery{Since: time.Now()}, nil},
		"the later of two": {client.EventQuery{Since: start.Add(8 * time.Minute), Tail: 5}, []string{"8", "9"}},
		"none of a type":   {client.EventQuery{Tail: 2, Types: []string{"x"}}, nil},
	} {
		tc.q.Once = true
		if got := read(tc.q, -1); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	// Nothing is lost between what was and what comes.
	got := make(chan []string)
	go func() { got <- read(client.EventQuery{Tail: 1}, 2) }()
	time.Sleep(100 * time.Millisecond)
	d.must(d.store.AppendEvent(ctx, lab.Event{Type: "t.0", Message: "10"}))
	if all := <-got; !slices.Equal(all, []string{"9", "10"}) {
		t.Errorf("followed: %v", all)
	}
	resp := d.raw("GET", "/v1/events?since=yesterday", "")
	if resp.StatusCode != 400 {
		t.Errorf("a bad time is answered with %d", resp.StatusCode)
	}
}
