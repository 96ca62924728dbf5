package control

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/core/scheduler"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

func (s *Server) createJob(r *http.Request, in api.JobCreate) (api.Accepted, error) {
	return once("job", in.ID, func() (api.Accepted, error) { return s.madeJob(r.Context(), in) },
		func() (api.Accepted, error) { return s.submitJob(r, in) })
}

func (s *Server) submitJob(r *http.Request, in api.JobCreate) (api.Accepted, error) {
	req, err := s.checkJob(r.Context(), api.JobCheck{JobCreate: in})
	if err != nil {
		return api.Accepted{}, err
	}
	op, sb, job, err := s.cfg.Scheduler.RunJob(r.Context(), req)
	if err != nil {
		return api.Accepted{}, err
	}
	sandbox, view := apiSandbox(sb), apiJob(job)
	return api.Accepted{Operation: apiOperation(op), Sandbox: &sandbox, Job: &view}, nil
}

// validateJob checks a job as createJob and the scheduler would.
func (s *Server) validateJob(r *http.Request, in api.JobCheck) (api.JobPlan, error) {
	req, err := s.checkJob(r.Context(), in)
	if err == nil {
		err = s.cfg.Scheduler.CheckJob(r.Context(), req)
	}
	if err != nil {
		return api.JobPlan{}, err
	}
	name, spec := req.Profile, req.Spec
	out := api.JobPlan{}
	if req.Sandbox != nil {
		view := apiSandbox(*req.Sandbox)
		out.Sandbox, name, spec = &view, req.Sandbox.Profile, req.Sandbox.Spec
	}
	out.Profile = apiProfile(name, spec)
	if out.Agent, err = s.agent(r.Context(), spec, in.Script); err != nil {
		return api.JobPlan{}, err
	}
	out.Mode, out.TTLSeconds = cmp.Or(req.Mode, spec.AgentMode), int64(cmp.Or(req.TTL, spec.TTL)/time.Second)
	return out, nil
}

// checkJob is all that is checked before a job has a row, and what is then asked
// of the scheduler. It tells all that is wrong at once.
func (s *Server) checkJob(ctx context.Context, in api.JobCheck) (scheduler.JobRequest, error) {
	ttl, ttlErr := checkTTL(in.TTLSeconds)
	req := scheduler.JobRequest{
		ID: in.ID, Profile: in.Profile, Task: in.Task, RepoURL: in.RepoURL, RepoID: in.RepoID, Ref: in.Ref,
		Mode: in.Mode, Keep: in.Keep, TTL: ttl,
	}
	problems := append(s.checkWork(ctx, in), ttlErr, s.place(ctx, in.JobCreate, &req))
	return req, problem.Join(append(problems, checkReach(req))...)
}

// checkReach refuses a repository that a sandbox without network cannot clone: the
// job would fail after all has been made.
func checkReach(req scheduler.JobRequest) error {
	mode, whose := req.Spec.NetworkMode, "profile "+strconv.Quote(req.Profile)
	if req.Sandbox != nil {
		mode, whose = req.Sandbox.Spec.NetworkMode, "sandbox "+req.Sandbox.Name
	}
	if req.RepoURL == "" || mode != string(network.ModeOff) {
		return nil
	}
	return fault.New(fault.Invalid, "the repository's URL cannot be reached: the network of %s is off", whose).
		WithHint("a local repository is uploaded (agentlab job run --repo PATH); else set network { mode } to nat or allowlist in the profile")
}

// place says where the job runs: in a new sandbox of its profile, or in the one
// that is named, as that was made.
func (s *Server) place(ctx context.Context, in api.JobCreate, req *scheduler.JobRequest) (err error) {
	if in.Sandbox == "" {
		req.Spec, err = s.checkProfile(ctx, in.Profile, true)
		return err
	}
	if in.Profile != "" || in.Keep {
		return fault.New(fault.Invalid, "a job in a sandbox takes neither profile nor keep: the sandbox has a profile, and stays")
	}
	sb, err := s.cfg.Store.FindSandbox(ctx, in.Sandbox)
	req.Sandbox = &sb
	return err
}

func (s *Server) jobs(r *http.Request) (api.List[api.Job], error) {
	f := state.JobFilter{Limit: int(queryInt(r, "limit", defaultLimit))}
	if ref := r.URL.Query().Get("sandbox"); ref != "" {
		sb, err := s.cfg.Store.FindSandbox(r.Context(), ref)
		if err != nil {
			return api.List[api.Job]{}, err
		}
		f.SandboxID = sb.ID
	}
	rows, err := s.cfg.Store.Jobs(r.Context(), f)
	if err != nil {
		return api.List[api.Job]{}, err
	}
	return each(newestFirst(rows), func(j lab.Job) api.Job { return s.viewJob(r.Context(), j) }), nil
}

func (s *Server) job(r *http.Request) (api.Job, error) {
	limit, err := waitLimit(r)
	if err != nil {
		return api.Job{}, err
	}
	j, err := s.awaitJob(r.Context(), limit, r.PathValue("id"))
	if err != nil {
		return api.Job{}, err
	}
	view := s.viewJob(r.Context(), j)
	if view.Artifacts, err = s.listArtifacts(r.Context(), j.ID); err != nil {
		return api.Job{}, err
	}
	if tail := queryInt(r, "events_tail", 0); tail > 0 {
		rows, err := s.newestEvents(r, state.EventFilter{JobID: j.ID, Limit: int(tail)})
		if err != nil {
			return api.Job{}, err
		}
		view.Events = each(rows, apiEvent).Items
	}
	return view, nil
}

// viewJob adds what the job's row does not hold; a part that cannot be read
// stays zero.
func (s *Server) viewJob(ctx context.Context, j lab.Job) api.Job {
	view := apiJob(j)
	if sb, err := s.cfg.Store.Sandbox(ctx, j.SandboxID); err == nil {
		view.VMID = sb.VMID
	}
	if st, err := s.artifacts.Stat(logName(j.ID)); err == nil {
		view.LogBytes = st.Size()
	}
	return view
}

func (s *Server) cancelJob(r *http.Request) (api.Accepted, error) {
	j, err := s.cfg.Store.Job(r.Context(), r.PathValue("id"))
	if err != nil {
		return api.Accepted{}, err
	}
	if j.State.Ended() && j.State != lab.JobCancelled {
		return api.Accepted{}, fault.New(fault.Precondition, "job has ended: %s", j.State).
			WithResource("job %s", j.ID).WithHint("there is nothing left to cancel; agentlab job show %s tells how it ended", j.ID)
	}
	if !j.State.Ended() { // asked again, it is as it was
		if err := s.cfg.Scheduler.CancelJob(r.Context(), j.ID); err != nil {
			return api.Accepted{}, err
		}
	}
	ops, err := s.cfg.Store.Operations(r.Context(), state.OperationFilter{JobID: j.ID, Limit: 1})
	if err != nil {
		return api.Accepted{}, err
	}
	if len(ops) == 0 {
		return api.Accepted{}, fault.New(fault.Internal, "job %s has no operation", j.ID)
	}
	if j, err = s.cfg.Store.Job(r.Context(), j.ID); err != nil {
		return api.Accepted{}, err
	}
	view := s.viewJob(r.Context(), j)
	return api.Accepted{Operation: apiOperation(ops[0]), Job: &view}, nil
}
