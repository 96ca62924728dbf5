package scheduler

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

const (
	leaseBatch  = 100
	pruneEvery  = time.Hour
	prunePause  = 50 * time.Millisecond // between batches, for other writers
	destroyRest = 10 * time.Minute      // after a destroy that failed, before the loops try again
	uploadRest  = time.Hour             // for a caller to submit the job of its upload
	leaseEnded  = "its lease ended"     // ends the reason of a sandbox that expired
)

// keep runs the loops that no request starts: it begins and ends leases, compares
// rows with VMs and forgets old events. It first runs at once.
func (s *Scheduler) keep(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Timing.Sweep)
	defer tick.Stop()
	var pruned time.Time
	for {
		s.try(ctx, "begin leases", s.beginLeases)
		s.try(ctx, "end leases", s.endLeases)
		s.try(ctx, "end stranded jobs", s.endStranded)
		s.try(ctx, "compare rows with VMs", s.sweep)
		s.try(ctx, "collect repositories", s.collectRepos)
		if time.Since(pruned) >= pruneEvery {
			pruned = time.Now()
			s.try(ctx, "prune events", s.prune)
			s.try(ctx, "remove old artifacts", s.collectArtifacts)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchNetwork keeps policies in force. It waits for nothing but the network
// plugin and the store: where rules are lost, sandboxes are open until it has
// looked. It first runs at once.
func (s *Scheduler) watchNetwork(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Timing.NetworkWatch)
	defer tick.Stop()
	for {
		s.try(ctx, "keep the network", s.keepNetwork)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Scheduler) try(ctx context.Context, what string, f func(context.Context) error) {
	if ctx.Err() != nil {
		return
	}
	if err := f(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("loop failed, will run again", "step", what, "err", err)
	}
}

// beginLeases gives one to each sandbox that was made for a job and stays after
// it, unless somebody asked to keep it: it would hold its memory, its disk and
// its names for ever. A job that takes longer leaves more time to look at it.
func (s *Scheduler) beginLeases(ctx context.Context) error {
	left, err := s.cfg.Store.LeftSandboxes(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, sb := range left {
		s.log.Info("sandbox stays after its job, lease begins", "sandbox", sb.ID, "vmid", sb.VMID)
		errs = append(errs, s.cfg.Store.BeginLease(ctx, sb.ID, stamp().Add(max(s.cfg.Timing.AfterJob, sb.Spec.TTL))))
	}
	return errors.Join(errs...)
}

// endLeases destroys what nobody wants any more: expired sandboxes, and failed
// ones that were made for a job and shall go with it.
func (s *Scheduler) endLeases(ctx context.Context) error {
	expired, err := s.cfg.Store.ExpiredSandboxes(ctx, leaseBatch)
	if err != nil {
		return err
	}
	for i := range expired {
		expired[i].Reason = becauseOfLease(expired[i].Reason)
	}
	failed, err := s.cfg.Store.IdleSandboxes(ctx, lab.SandboxFailed)
	if err != nil {
		return err
	}
	for _, sb := range failed {
		goes, err := s.unwanted(ctx, sb)
		if err != nil {
			return err
		}
		if goes {
			expired = append(expired, sb)
		}
	}
	for _, sb := range expired {
		rests, err := s.restsAfterDestroy(ctx, sb.ID)
		if err != nil {
			return err
		}
		if rests {
			continue
		}
		s.log.Info("destroying what nobody wants any more", "sandbox", sb.ID, "vmid", sb.VMID, "reason", sb.Reason)
		if _, err := s.destroyBecause(ctx, sb.ID, leaseReason(sb)); err != nil {
			return err
		}
	}
	return nil
}

// becauseOfLease adds the end of the lease to the reason that a sandbox has, which
// may say why it failed.
func becauseOfLease(reason string) string {
	if reason == "" || strings.HasSuffix(reason, leaseEnded) {
		return cmp.Or(reason, leaseEnded)
	}
	return reason + "; " + leaseEnded
}

// leaseReason is the reason of a sandbox that goes because its lease ended, else "".
func leaseReason(sb lab.Sandbox) string {
	if strings.HasSuffix(sb.Reason, leaseEnded) {
		return sb.Reason
	}
	return ""
}

// unwanted reports whether a failed sandbox was made for a job and shall not
// outlive it. What the profile says to stop or keep is left to be looked at,
// unless it never came so far, or somebody asked for its end in vain.
func (s *Scheduler) unwanted(ctx context.Context, sb lab.Sandbox) (bool, error) {
	if sb.JobID == "" || sb.Keep {
		return false, nil
	}
	job, err := s.cfg.Store.Job(ctx, sb.JobID)
	if err != nil || job.Borrowed {
		return false, err
	}
	if stays := sb.Spec.OnJobEnd == endStop || sb.Spec.OnJobEnd == endKeep; !stays || sb.ReadyAt.IsZero() {
		return true, nil
	}
	ops, err := s.cfg.Store.Operations(ctx, state.OperationFilter{Subject: sb.ID, Limit: 1})
	return err == nil && len(ops) == 1 && ops[0].Kind == lab.OpDestroySandbox, err
}

// collectRepos removes uploads that nothing needs any more. A job's own end
// removes its upload; this finds what a crash or an absent caller left.
func (s *Scheduler) collectRepos(ctx context.Context) error {
	repos, err := s.cfg.Store.CollectRepos(ctx, time.Now().Add(-uploadRest))
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range repos {
		errs = append(errs, s.removeRepo(ctx, r.ID))
	}
	return errors.Join(errs...)
}

func (s *Scheduler) restsAfterDestroy(ctx context.Context, sandboxID string) (bool, error) {
	ops, err := s.cfg.Store.Operations(ctx, state.OperationFilter{Subject: sandboxID, Limit: 1})
	if err != nil || len(ops) == 0 || ops[0].Kind != lab.OpDestroySandbox {
		return false, err
	}
	return time.Since(ops[0].EndedAt) < destroyRest, nil
}

// endStranded ends jobs that nothing is left to end. Every path commits job and
// operation together, so this only heals what a defect or a hand did.
func (s *Scheduler) endStranded(ctx context.Context) error {
	jobs, err := s.cfg.Store.StrandedJobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		err := s.alone(ctx, j.SandboxID, func(ctx context.Context) error {
			return s.cfg.Store.Commit(ctx, state.Commit{Jobs: []state.JobChange{
				{ID: j.ID, To: lab.JobFailed, Reason: "no operation was left to run it"},
			}})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// alone runs f while no worker has the subject, and only if none has anything
// to do for it; else the next round will see.
func (s *Scheduler) alone(ctx context.Context, subject string, f func(ctx context.Context) error) error {
	if !s.claim(subject) {
		return nil
	}
	defer s.release(subject)
	open, err := s.cfg.Store.Operations(ctx, state.OperationFilter{Subject: subject, Open: true})
	if err != nil || len(open) > 0 {
		return err
	}
	return f(ctx)
}

func (s *Scheduler) prune(ctx context.Context) error {
	before := time.Now().Add(-s.cfg.Timing.EventsKept)
	for {
		more, err := s.cfg.Store.PruneEvents(ctx, before)
		if err != nil || !more {
			return err
		}
		sleep(ctx, prunePause)
	}
}
