package control

import (
	"context"
	"errors"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// once takes a request that may be sent again because its answer was lost: it
// answers with what the id stands for already, and else does the work. made is
// fault.NotFound when the id stands for nothing.
func once(prefix, id string, made, do func() (api.Accepted, error)) (api.Accepted, error) {
	if id == "" {
		return do()
	}
	if !lab.IsID(prefix, id) {
		return api.Accepted{}, fault.New(fault.Invalid, "id %q is not of the form %s_ and 16 letters and digits of base32", id, prefix).
			WithHint("leave the id out, and the daemon chooses one")
	}
	if a, err := made(); !errors.Is(err, fault.NotFound) {
		return a, err
	}
	a, err := do()
	if errors.Is(err, fault.Exists) { // the same request, at the same moment, or a name that is taken
		if first, again := made(); !errors.Is(again, fault.NotFound) {
			return first, again
		}
	}
	return a, err
}

// madeJob is the answer to a request for a job that there is already.
func (s *Server) madeJob(ctx context.Context, in api.JobCreate) (api.Accepted, error) {
	job, err := s.cfg.Store.Job(ctx, in.ID)
	if err != nil {
		return api.Accepted{}, err
	}
	if job.Task != in.Task || job.RepoURL != in.RepoURL || job.RepoID != in.RepoID || job.Ref != in.Ref {
		return api.Accepted{}, another("job", in.ID)
	}
	sb, err := s.cfg.Store.Sandbox(ctx, job.SandboxID)
	if err != nil {
		return api.Accepted{}, err
	}
	op, err := s.firstOperation(ctx, state.OperationFilter{JobID: job.ID})
	sandbox, view := apiSandbox(sb), s.viewJob(ctx, job)
	return api.Accepted{Operation: op, Sandbox: &sandbox, Job: &view}, err
}

// madeSandbox is the answer to a request for a sandbox that there is already.
func (s *Server) madeSandbox(ctx context.Context, in api.SandboxCreate) (api.Accepted, error) {
	sb, err := s.cfg.Store.Sandbox(ctx, in.ID)
	if err != nil {
		return api.Accepted{}, err
	}
	if sb.Profile != in.Profile || in.Name != "" && sb.Name != in.Name {
		return api.Accepted{}, another("sandbox", in.ID)
	}
	op, err := s.firstOperation(ctx, state.OperationFilter{Subject: sb.ID})
	view := apiSandbox(sb)
	return api.Accepted{Operation: op, Sandbox: &view}, err
}

func another(what, id string) error {
	return fault.New(fault.Conflict, "%s %s was made by another request", what, id).
		WithHint("an id stands for one request; leave it out, or choose a new one")
}

func (s *Server) firstOperation(ctx context.Context, f state.OperationFilter) (api.Operation, error) {
	ops, err := s.cfg.Store.Operations(ctx, f)
	if err == nil && len(ops) == 0 {
		err = fault.New(fault.Internal, "no operation is recorded for it")
	}
	if err != nil {
		return api.Operation{}, err
	}
	return apiOperation(ops[0]), nil
}
