package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// collectArtifacts removes what ended jobs left longer ago than their profile
// keeps it. The files are what it goes by, so a crash between rows and files is
// made good by the next look. Files of a job that has no row are left: who can
// say whose they are.
func (s *Scheduler) collectArtifacts(ctx context.Context) error {
	ids, err := s.cfg.ArtifactJobs(ctx)
	if err != nil {
		return fmt.Errorf("list jobs with artifacts: %w", err)
	}
	var errs []error
	for _, id := range ids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		old, err := s.outlived(ctx, id)
		if err == nil && old {
			if err = s.cfg.Store.ForgetArtifacts(ctx, id); err == nil {
				err = s.cfg.CleanArtifacts(ctx, id)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("artifacts of %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// outlived reports whether the time of the job's artifacts is over.
func (s *Scheduler) outlived(ctx context.Context, jobID string) (bool, error) {
	job, err := s.cfg.Store.Job(ctx, jobID)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil || !job.State.Ended() {
		return false, err
	}
	sb, err := s.cfg.Store.Sandbox(ctx, job.SandboxID)
	if err != nil || sb.Spec.ArtifactsFor <= 0 {
		return false, err
	}
	return time.Since(job.EndedAt) > sb.Spec.ArtifactsFor, nil
}
