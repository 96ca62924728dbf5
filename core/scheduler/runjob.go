package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	stepFinish = "finish"

	// What on_job_end may say; anything else is destroy.
	endStop = "stop"
	endKeep = "keep"
)

func (s *Scheduler) runJob() kind {
	finish := s.cfg.Timing.CallTimeout + s.cfg.Timing.StopGrace
	return kind{
		steps: []step{
			{name: "wait-start", run: waitStart, limit: func(w *work) time.Duration { return w.cfg.Timing.JobStart }},
			{name: "wait-end", run: waitEnd},
			{name: stepFinish, run: finishJob, timeout: finish, retries: patient},
		},
		done:   func(*work) state.Commit { return state.Commit{} },
		failed: jobFailed,
	}
}

// outcome is how a job ends; the zero value is not yet.
type outcome struct {
	state    lab.JobState
	reason   string
	exitCode *int
}

func (o outcome) change(jobID string) state.JobChange {
	return state.JobChange{ID: jobID, To: o.state, Reason: o.reason, ExitCode: o.exitCode}
}

// waitStart waits for the job's first sign of life.
func waitStart(ctx context.Context, w *work) (state.Commit, error) {
	var end outcome
	var ttl time.Duration
	vm := w.vmLook()
	err := w.until(ctx, func(ctx context.Context) (bool, error) {
		job, err := w.cfg.Store.Job(ctx, w.op.JobID)
		ttl = job.TTL
		if err != nil || job.State.Ended() || !job.LastSeen.IsZero() || job.Reported != nil {
			return err == nil, err
		}
		switch {
		case job.CancelRequested:
			end = outcome{state: lab.JobCancelled, reason: "cancelled before it began"}
		case time.Now().After(later(w.op.Deadline, w.resumed())):
			end = outcome{state: lab.JobFailed, reason: w.notBegun(ctx)}
		default:
			if what := vm(ctx); what != "" {
				end = outcome{state: lab.JobFailed, reason: what + " before the job began"}
			}
		}
		return end.state != "", nil
	})
	if err != nil {
		return state.Commit{}, err
	}
	if end.state != "" {
		return state.Commit{}, &jump{to: stepFinish, commit: state.Commit{Jobs: []state.JobChange{end.change(w.op.JobID)}}}
	}
	now := stamp()
	c := w.sandboxTo(lab.SandboxRunning, "")
	c.Jobs = []state.JobChange{{ID: w.op.JobID, To: lab.JobRunning, StartedAt: now, Deadline: now.Add(ttl + w.cfg.Timing.JobGrace)}}
	return c, nil
}

// notBegun is what can be said about a guest that said hello and no more.
func (w *work) notBegun(ctx context.Context) string {
	err := fault.New(fault.Timeout, "the guest did not begin the job within %s; agentlab status and the daemon's log tell whether it was given its secrets", w.cfg.Timing.JobStart)
	return w.withConsole(ctx, err).Error()
}

// waitEnd waits for the guest's final report, and for everything that makes
// waiting for it pointless. The host's deadline is the authority.
func waitEnd(ctx context.Context, w *work) (state.Commit, error) {
	var end outcome
	var cancelledAt time.Time
	vm := w.vmLook()
	err := w.until(ctx, func(ctx context.Context) (bool, error) {
		job, err := w.cfg.Store.Job(ctx, w.op.JobID)
		if err != nil || job.State.Ended() {
			return err == nil, err
		}
		if job.CancelRequested && cancelledAt.IsZero() {
			cancelledAt = time.Now()
		}
		if end = w.judge(job, cancelledAt); end.state == "" {
			if what := vm(ctx); what != "" {
				end = w.stopped(ctx, what)
			}
		}
		return end.state != "", nil
	})
	if err != nil || end.state == "" {
		return state.Commit{}, err
	}
	return state.Commit{Jobs: []state.JobChange{end.change(w.op.JobID)}}, nil
}

// stopped is the outcome of a job whose VM is off, unless the report came just
// before.
func (w *work) stopped(ctx context.Context, what string) outcome {
	if job, err := w.cfg.Store.Job(ctx, w.op.JobID); err == nil && job.Reported != nil {
		return fromReport(*job.Reported)
	}
	return outcome{state: lab.JobFailed, reason: what + " while the job ran"}
}

// judge decides by the rows and the clock alone.
func (w *work) judge(job lab.Job, cancelledAt time.Time) outcome {
	now, t := time.Now(), w.cfg.Timing
	switch {
	case job.Reported != nil:
		return fromReport(*job.Reported)
	case !cancelledAt.IsZero() && now.Sub(cancelledAt) >= t.CancelGrace:
		return outcome{state: lab.JobCancelled, reason: fmt.Sprintf("cancelled; the guest did not stop within %s", t.CancelGrace)}
	case now.After(later(job.Deadline, w.resumed())):
		return outcome{state: lab.JobTimeout, reason: fmt.Sprintf("still running %s after its time of %s was over", t.JobGrace, job.TTL)}
	case now.Sub(later(job.LastSeen, w.resumed().Add(-t.ResumeGrace))) > t.Silence:
		return outcome{state: lab.JobFailed, reason: fmt.Sprintf("no sign of life from the guest for %s", t.Silence)}
	}
	return outcome{}
}

func fromReport(r lab.JobReport) outcome {
	o := outcome{reason: r.Message, exitCode: &r.ExitCode}
	switch r.Status {
	case "completed":
		o.state = lab.JobCompleted
		if !r.Uploaded {
			o.state, o.reason = lab.JobFailed, "the artifacts were not uploaded"
			if r.Message != "" {
				o.reason += ": " + r.Message
			}
		}
	case "timeout":
		o.state = lab.JobTimeout
	case "cancelled":
		o.state = lab.JobCancelled
	case "failed":
		o.state = lab.JobFailed
		if o.reason == "" {
			o.reason = fmt.Sprintf("the agent exited with %d", r.ExitCode)
		}
	default:
		o.state, o.reason = lab.JobFailed, fmt.Sprintf("the guest reported the unknown status %q", r.Status)
	}
	return o
}

// finishJob applies on_job_end. A sandbox that goes loses its credentials at
// once; one that stays needs them for its next start.
func finishJob(ctx context.Context, w *work) (state.Commit, error) {
	job, err := w.cfg.Store.Job(ctx, w.op.JobID)
	if err != nil {
		return state.Commit{}, err
	}
	if err := w.cleanRepo(ctx, job); err != nil {
		w.log.Warn("repository not removed, the loops will try again", "err", err)
	}
	policy := w.sb.Spec.OnJobEnd
	if w.sb.Keep || job.Borrowed {
		policy = endKeep
	}
	switch policy {
	case endKeep:
		if job.Reported != nil {
			return w.keepVM(ctx)
		}
		// The agent may still be at work, and its time is over.
		return w.stopVM(ctx, "stopped because its job did not end by itself")
	case endStop:
		return w.stopVM(ctx, "stopped when its job ended")
	}
	return state.Commit{
		Revoke: []string{w.sb.ID},
		Submit: []lab.Operation{newOperation(lab.OpDestroySandbox, w.sb.ID, "")},
	}, nil
}

func (w *work) stopVM(ctx context.Context, reason string) (state.Commit, error) {
	_, err := w.cfg.Hypervisor.SetPower(ctx, w.ref(), hypervisor.PowerShutdown, w.cfg.Timing.StopGrace)
	if errors.Is(err, fault.NotFound) {
		return w.sandboxTo(lab.SandboxFailed, "the VM is gone"), nil
	}
	return w.sandboxTo(lab.SandboxStopped, reason), err
}

func (w *work) keepVM(ctx context.Context) (state.Commit, error) {
	vm, err := w.cfg.Hypervisor.GetVM(ctx, w.ref())
	switch {
	case errors.Is(err, fault.NotFound):
		return w.sandboxTo(lab.SandboxFailed, "the VM is gone"), nil
	case err == nil && vm.Power == hypervisor.PowerOff:
		return w.sandboxTo(lab.SandboxStopped, "the VM stopped"), nil
	}
	return w.sandboxTo(lab.SandboxReady, ""), err
}

// jobFailed ends a job whose operation could not go on, above all because its
// sandbox is being destroyed.
func jobFailed(w *work) state.Commit {
	if w.op.Cancel {
		return state.Commit{Jobs: []state.JobChange{{ID: w.op.JobID, To: lab.JobCancelled, Reason: "its sandbox was destroyed"}}}
	}
	c := w.sandboxTo(lab.SandboxFailed, reason(w.op))
	c.Jobs = []state.JobChange{{ID: w.op.JobID, To: lab.JobFailed, Reason: reason(w.op)}}
	return c
}
