package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

func (s *Scheduler) destroySandbox() kind {
	call := s.cfg.Timing.CallTimeout
	return kind{
		steps: []step{
			{name: "revoke", run: revoke, timeout: call, retries: patient},
			{name: "destroy-vm", run: destroyVM, timeout: call, retries: patient},
			{name: "detach-network", run: detachFinally, timeout: call, retries: patient},
			{name: "clean-repos", run: cleanRepos, timeout: call, retries: patient},
		},
		done:   func(w *work) state.Commit { return w.sandboxTo(lab.SandboxDestroyed, leaseReason(w.sb)) },
		failed: func(w *work) state.Commit { return w.sandboxTo(lab.SandboxFailed, reason(w.op)) },
	}
}

// revoke shuts the guest out and ends what still counts as its job.
func revoke(ctx context.Context, w *work) (state.Commit, error) {
	jobs, err := w.cfg.Store.Jobs(ctx, state.JobFilter{SandboxID: w.sb.ID})
	c := state.Commit{Revoke: []string{w.sb.ID}}
	for _, j := range jobs {
		if !j.State.Ended() {
			c.Jobs = append(c.Jobs, state.JobChange{ID: j.ID, To: lab.JobCancelled, Reason: "its sandbox was destroyed"})
		}
	}
	return c, err
}

func destroyVM(ctx context.Context, w *work) (state.Commit, error) {
	return state.Commit{}, cutAndRemoveVM(ctx, w)
}

func detachFinally(ctx context.Context, w *work) (state.Commit, error) {
	return state.Commit{}, detachNetwork(ctx, w)
}

// cleanRepos removes the uploads of this sandbox's jobs.
func cleanRepos(ctx context.Context, w *work) (state.Commit, error) {
	jobs, err := w.cfg.Store.Jobs(ctx, state.JobFilter{SandboxID: w.sb.ID})
	if err != nil {
		return state.Commit{}, err
	}
	for _, j := range jobs {
		if err := w.cleanRepo(ctx, j); err != nil {
			return state.Commit{}, err
		}
	}
	return state.Commit{}, nil
}

// cleanRepo removes the job's upload if it is still there.
func (s *Scheduler) cleanRepo(ctx context.Context, j lab.Job) error {
	if j.RepoID == "" {
		return nil
	}
	repo, err := s.cfg.Store.Repo(ctx, j.RepoID)
	if errors.Is(err, fault.NotFound) || err == nil && repo.UsedBy != j.ID {
		return nil
	}
	if err != nil {
		return err
	}
	return s.removeRepo(ctx, j.RepoID)
}

// removeRepo removes the file before the row, which is what finds it again.
func (s *Scheduler) removeRepo(ctx context.Context, id string) error {
	if err := s.cfg.CleanRepo(ctx, id); err != nil {
		return fmt.Errorf("remove repository %s: %w", id, err)
	}
	return s.cfg.Store.DeleteRepo(ctx, id)
}
