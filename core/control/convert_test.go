package control

import (
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/lab"
)

// What people are told is the time they asked for, without the host's grace, and
// of a job that has ended no stage.
func TestJobAsPeopleSeeIt(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	j := lab.Job{State: lab.JobRunning, Stage: "agent", TTL: time.Hour, StartedAt: began, Deadline: began.Add(time.Hour + time.Minute)}
	if v := apiJob(j); v.Deadline == nil || !v.Deadline.Equal(began.Add(time.Hour)) || v.Stage != "agent" {
		t.Errorf("deadline %v, stage %q, want an hour after %v, in stage agent", v.Deadline, v.Stage, began)
	}
	j.State = lab.JobCompleted
	if v := apiJob(j); v.Stage != "" || v.Deadline == nil {
		t.Errorf("stage %q, deadline %v of a job that has ended", v.Stage, v.Deadline)
	}
	if v := apiJob(lab.Job{State: lab.JobQueued, TTL: time.Hour}); v.Deadline != nil {
		t.Errorf("deadline %v before the job began", v.Deadline)
	}
}
