package control

import (
	"cmp"
	"net/http"
	"strconv"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

func (s *Server) operations(r *http.Request) (api.List[api.Operation], error) {
	f, err := s.subjectOf(r)
	if err != nil {
		return api.List[api.Operation]{}, err
	}
	rows, err := s.cfg.Store.Operations(r.Context(), state.OperationFilter{
		Subject: f.SandboxID, JobID: f.JobID, Open: queryFlag(r, "open"),
		Limit: int(queryInt(r, "limit", defaultLimit)),
	})
	return each(newestFirst(rows), apiOperation), err
}

// subjectOf reads the parameters sandbox and job. What is not there is an
// error: an empty listing, or a stream that stays silent, would not tell.
func (s *Server) subjectOf(r *http.Request) (f state.EventFilter, err error) {
	if ref := r.URL.Query().Get("sandbox"); ref != "" {
		sb, err := s.cfg.Store.FindSandbox(r.Context(), ref)
		if err != nil {
			return f, err
		}
		f.SandboxID = sb.ID
	}
	if id := r.URL.Query().Get("job"); id != "" {
		j, err := s.cfg.Store.Job(r.Context(), id)
		if err != nil {
			return f, err
		}
		f.JobID = j.ID
	}
	return f, nil
}

func (s *Server) operation(r *http.Request) (api.Operation, error) {
	limit, err := waitLimit(r)
	if err != nil {
		return api.Operation{}, err
	}
	op, err := s.awaitOperation(r.Context(), limit, r.PathValue("id"))
	if err != nil {
		return api.Operation{}, err
	}
	events, err := s.newestEvents(r, state.EventFilter{
		Operation: op.ID, Limit: maxLimit,
		Types: []string{lab.EventStepStarted, lab.EventStepFinished, lab.EventStepFailed},
	})
	view := apiOperation(op)
	view.Steps = stepsOf(op, s.cfg.Scheduler.Steps(op.Kind), events)
	return view, err
}

func (s *Server) cancelOperation(r *http.Request) (api.Accepted, error) {
	op, err := s.cfg.Scheduler.CancelOperation(r.Context(), r.PathValue("id"))
	if err != nil {
		return api.Accepted{}, err
	}
	out := api.Accepted{Operation: apiOperation(op)}
	if sb, err := s.cfg.Store.Sandbox(r.Context(), op.Subject); err == nil {
		view := apiSandbox(sb)
		out.Sandbox = &view
	}
	if op.JobID != "" {
		j, err := s.cfg.Store.Job(r.Context(), op.JobID)
		if err != nil {
			return api.Accepted{}, err
		}
		view := s.viewJob(r.Context(), j)
		out.Job = &view
	}
	return out, nil
}

// What has become of a step.
const (
	stepPending = "pending"
	stepRunning = "running"
	stepFailed  = "failed"
	stepDone    = "done"
	stepUndoing = "undoing"
	stepUndone  = "undone"
	stepSkipped = "skipped"
	stepStopped = "stopped" // by a cancel request
)

// stepsOf tells of each step of the operation's kind what its events say, and
// where they are not kept any more, what its row does.
func stepsOf(op lab.Operation, names []string, events []lab.Event) []api.Step {
	steps, at := make([]api.Step, len(names)), map[string]int{}
	for i, name := range names {
		steps[i], at[name] = api.Step{Name: name, State: stepPending}, i
		if i < op.StepIndex && op.State == lab.OpRunning || op.State == lab.OpDone {
			steps[i].State = stepDone
			if len(events) > 0 && len(events) < maxLimit { // they would tell of it
				steps[i].State = stepSkipped
			}
		}
	}
	for _, e := range events {
		i, ok := at[e.Fields["step"]]
		if !ok {
			continue
		}
		undo := e.Fields["undo"] == "true"
		switch e.Type {
		case lab.EventStepStarted:
			steps[i].State = stepRunning
			if undo {
				steps[i].State = stepUndoing
			}
			steps[i].Attempt, _ = strconv.Atoi(e.Fields["attempt"])
		case lab.EventStepFinished:
			steps[i].State = stepDone
			if undo {
				steps[i].State = stepUndone
			}
			steps[i].TookMS, _ = strconv.ParseInt(e.Fields["took_ms"], 10, 64)
		case lab.EventStepFailed:
			steps[i].State = stepFailed
			steps[i].Error = cmp.Or(e.Message, e.Fields["error"])
		}
	}
	for i := range steps {
		if steps[i].State == stepRunning && op.State != lab.OpPending && op.State != lab.OpRunning {
			steps[i].State = stepStopped
		}
	}
	return steps
}
