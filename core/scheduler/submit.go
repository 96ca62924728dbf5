package scheduler

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// SandboxRequest asks for a sandbox without a job.
type SandboxRequest struct {
	ID      string // "" makes one
	Name    string // "" chooses one
	Profile string
	Spec    lab.Spec
	Keep    bool          // no lease
	TTL     time.Duration // of the lease; 0 takes Spec.TTL
}

// JobRequest asks for a job, in a sandbox of its own or in one that is there.
type JobRequest struct {
	ID              string       // "" makes one
	Sandbox         *lab.Sandbox // nil makes one from Spec
	Profile, Task   string
	RepoURL, RepoID string // at most one
	Ref             string
	Mode            string // "" takes Spec.AgentMode
	Spec            lab.Spec
	Keep            bool          // keep the sandbox whatever Spec.OnJobEnd says
	TTL             time.Duration // longest run time; 0 takes Spec.TTL
}

// CreateSandbox writes the rows of a new sandbox and returns. fault.Invalid, or
// fault.Exists when the name is taken.
func (s *Scheduler) CreateSandbox(ctx context.Context, r SandboxRequest) (lab.Operation, lab.Sandbox, error) {
	sb, err := s.newSandbox(r)
	if err != nil {
		return lab.Operation{}, lab.Sandbox{}, err
	}
	sb.Keep = r.Keep
	if !r.Keep && sb.Spec.TTL > 0 {
		sb.ExpiresAt = sb.CreatedAt.Add(sb.Spec.TTL)
	}
	op, err := s.submitCreate(ctx, &sb, nil)
	return op, sb, err
}

// RunJob writes the rows of a new job and its sandbox and returns.
func (s *Scheduler) RunJob(ctx context.Context, r JobRequest) (lab.Operation, lab.Sandbox, lab.Job, error) {
	refuse := func(err error) (lab.Operation, lab.Sandbox, lab.Job, error) {
		return lab.Operation{}, lab.Sandbox{}, lab.Job{}, err
	}
	if r.RepoURL != "" && r.RepoID != "" {
		return refuse(fault.New(fault.Invalid, "a job has a repository URL or an upload, not both"))
	}
	if r.Sandbox != nil {
		return s.borrow(ctx, r)
	}
	sb, err := s.newSandbox(SandboxRequest{Profile: r.Profile, Spec: r.Spec, TTL: r.TTL})
	if err != nil {
		return refuse(err)
	}
	job := r.job(sb)
	sb.JobID, sb.Keep = job.ID, r.Keep
	op, err := s.submitCreate(ctx, &sb, &job)
	if err != nil {
		return refuse(err)
	}
	return op, sb, job, nil
}

// submitCreate writes the rows of a new sandbox, and of its job. Where the host
// is known to be fit, the sandbox is given its VMID and address with them, so that
// the operation begins behind that step; where none is free it waits for one there.
func (s *Scheduler) submitCreate(ctx context.Context, sb *lab.Sandbox, job *lab.Job) (lab.Operation, error) {
	host, err := s.refuseUnfit(ctx)
	if err != nil {
		return lab.Operation{}, err
	}
	op, started := s.begun(newOperation(lab.OpCreateSandbox, sb.ID, sb.JobID))
	plain := state.Submission{Sandbox: sb, Job: job, Operation: &op, Events: []lab.Event{started}}
	sub := plain
	if host != nil {
		sub = s.reserved(plain, *host)
	}
	err = s.cfg.Store.Submit(ctx, sub)
	if sub.Reserve != nil && errors.Is(err, fault.Exhausted) {
		sub = plain
		err = s.cfg.Store.Submit(ctx, sub)
	}
	if err != nil {
		return lab.Operation{}, err
	}
	s.Wake()
	return *sub.Operation, nil
}

// CheckJob refuses what RunJob would refuse, and writes nothing.
func (s *Scheduler) CheckJob(ctx context.Context, r JobRequest) error {
	if r.Sandbox == nil {
		_, err := s.newSandbox(SandboxRequest{Profile: r.Profile, Spec: r.Spec, TTL: r.TTL})
		if err == nil {
			_, err = s.refuseUnfit(ctx)
		}
		return err
	}
	open, err := s.cfg.Store.Operations(ctx, state.OperationFilter{Subject: r.Sandbox.ID, Open: true})
	if err != nil {
		return err
	}
	return state.CheckFree(*r.Sandbox, open)
}

// borrow runs the job in a sandbox that was not made for it and outlives it.
func (s *Scheduler) borrow(ctx context.Context, r JobRequest) (lab.Operation, lab.Sandbox, lab.Job, error) {
	sb := *r.Sandbox
	job := r.job(sb)
	job.Borrowed = true
	op := newOperation(lab.OpRunJob, sb.ID, job.ID)
	if err := s.cfg.Store.SubmitJob(ctx, job, op); err != nil {
		return lab.Operation{}, lab.Sandbox{}, lab.Job{}, err
	}
	s.Wake()
	sb.JobID = job.ID
	return op, sb, job, nil
}

func (r JobRequest) job(sb lab.Sandbox) lab.Job {
	return lab.Job{
		ID: cmp.Or(r.ID, lab.NewID("job")), SandboxID: sb.ID, State: lab.JobQueued, ExitCode: -1, Task: r.Task, Profile: sb.Profile,
		RepoURL: r.RepoURL, RepoID: r.RepoID, Ref: r.Ref, Mode: cmp.Or(r.Mode, sb.Spec.AgentMode),
		TTL: cmp.Or(r.TTL, sb.Spec.TTL), CreatedAt: stamp(),
	}
}

// DestroySandbox opens a destroy-sandbox operation, or returns the one that is
// open or that destroyed the sandbox. What else runs for it is asked to stop.
func (s *Scheduler) DestroySandbox(ctx context.Context, sandboxID string) (lab.Operation, error) {
	return s.destroyBecause(ctx, sandboxID, "")
}

// destroyBecause is DestroySandbox with a reason that the sandbox keeps.
func (s *Scheduler) destroyBecause(ctx context.Context, sandboxID, because string) (lab.Operation, error) {
	op, err := s.cfg.Store.SubmitDestroy(ctx, newOperation(lab.OpDestroySandbox, sandboxID, ""), because)
	if err == nil {
		s.Wake()
	}
	return op, err
}

// CancelJob asks a job to stop; its operation then ends it. fault.Precondition
// when it has ended already.
func (s *Scheduler) CancelJob(ctx context.Context, jobID string) error {
	return s.cfg.Store.RequestCancel(ctx, jobID)
}

// CancelOperation asks an operation to stop and gives it as it is then; its
// worker then ends it. See state.Store.CancelOperation.
func (s *Scheduler) CancelOperation(ctx context.Context, id string) (lab.Operation, error) {
	op, err := s.cfg.Store.CancelOperation(ctx, id)
	if err == nil {
		s.Wake()
	}
	return op, err
}

// begun is a new operation whose first step begins with the commit that submits
// it: nothing of its subject is in its way.
func (s *Scheduler) begun(op lab.Operation) (lab.Operation, lab.Event) {
	first := s.kinds[op.Kind].steps[0]
	w := &work{Scheduler: s, op: op, sb: lab.Sandbox{ID: op.Subject, JobID: op.JobID}}
	return w.entering(first, op, nil)
}

// reserved is the submission of a new sandbox whose step to reserve is done with it.
func (s *Scheduler) reserved(sub state.Submission, host hypervisor.HostReport) state.Submission {
	w := &work{Scheduler: s, op: *sub.Operation, sb: *sub.Sandbox}
	done := w.event(lab.EventStepFinished, w.op, "", tookField(0))
	next := w.op
	next.StepIndex, next.Attempt = 1, 0
	next, started := w.entering(s.kinds[next.Kind].steps[next.StepIndex], next, nil)
	r := s.rangeOf(host)
	sub.Reserve, sub.Operation, sub.Events = &r, &next, append(sub.Events, done, started)
	return sub
}

func newOperation(kind lab.OperationKind, subject, job string) lab.Operation {
	return lab.Operation{ID: lab.NewID("op"), Kind: kind, Subject: subject, JobID: job, State: lab.OpPending, CreatedAt: stamp()}
}

// newSandbox checks what plugins could only refuse after much has been made.
func (s *Scheduler) newSandbox(r SandboxRequest) (lab.Sandbox, error) {
	id, spec := cmp.Or(r.ID, lab.NewID("sbx")), r.Spec
	name := cmp.Or(r.Name, "box-"+strings.TrimPrefix(id, "sbx_")[:8])
	if r.TTL > 0 {
		spec.TTL = r.TTL
	}
	if err := s.checkSpec(name, spec); err != nil {
		return lab.Sandbox{}, err
	}
	return lab.Sandbox{
		ID: id, Name: name, Owner: lab.OwnerMark(s.cfg.HostUUID, id), State: lab.SandboxRequested, Spec: spec,
		Profile: r.Profile, Generation: 1, CreatedAt: stamp(),
	}, nil
}

func (s *Scheduler) checkSpec(name string, spec lab.Spec) error {
	if err := lab.CheckName(name); err != nil {
		return fault.New(fault.Invalid, "sandbox name %q: %w", name, err)
	}
	switch {
	case spec.Template == "":
		return fault.New(fault.Invalid, "no template is named").WithHint("set template_vmid or template in the profile")
	case spec.Cores == 0 || spec.MemoryMB == 0:
		return fault.New(fault.Invalid, "a sandbox needs at least one core and some memory")
	case spec.TTL < 0 || spec.ProvisionTimeout < 0:
		return fault.New(fault.Invalid, "a duration is negative")
	}
	rules, err := lab.ParseAllow(spec.NetworkAllow)
	if err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	for i, r := range rules {
		if r.Reaches(s.cfg.Subnet) {
			return fault.New(fault.Invalid, "network allow %q reaches the sandboxes' own subnet %s", spec.NetworkAllow[i], s.cfg.Subnet)
		}
	}
	return nil
}

// stamp is now as the store keeps it.
func stamp() time.Time { return time.UnixMilli(time.Now().UnixMilli()).UTC() }
