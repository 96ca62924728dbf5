package control

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
)

// await calls done after every change until it says yes, the limit passes, the
// caller leaves or the daemon stops; only a failure of done is an error.
func (s *Server) await(ctx context.Context, limit time.Duration, done func(context.Context) (bool, error)) (bool, error) {
	wake, stop := s.cfg.Store.Watch()
	defer stop()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		if ok, err := done(ctx); ok || err != nil {
			return ok, err
		}
		select {
		case <-wake:
		case <-timeout.C:
			return false, nil
		case <-ctx.Done():
			return false, nil
		case <-s.closing:
			return false, nil
		}
	}
}

// awaitAccepted waits for the end of the job, else of the operation, and
// answers what has become of all three.
func (s *Server) awaitAccepted(ctx context.Context, limit time.Duration, a api.Accepted) (api.Accepted, bool, error) {
	done, err := s.await(ctx, limit, func(ctx context.Context) (bool, error) {
		if a.Job != nil {
			j, err := s.cfg.Store.Job(ctx, a.Job.ID)
			return j.State.Ended(), err
		}
		op, err := s.cfg.Store.Operation(ctx, a.Operation.ID)
		return op.State.Ended(), err
	})
	if err != nil {
		return a, false, err
	}
	op, err := s.cfg.Store.Operation(ctx, a.Operation.ID)
	if err != nil {
		return a, false, err
	}
	a.Operation = apiOperation(op)
	if a.Sandbox != nil {
		sb, err := s.cfg.Store.Sandbox(ctx, a.Sandbox.ID)
		if err != nil {
			return a, false, err
		}
		view := apiSandbox(sb)
		a.Sandbox = &view
	}
	if a.Job != nil {
		j, err := s.cfg.Store.Job(ctx, a.Job.ID)
		if err != nil {
			return a, false, err
		}
		view := s.viewJob(ctx, j)
		a.Job = &view
	}
	return a, done, nil
}

// awaitJob answers the job once it has ended or the limit passed.
func (s *Server) awaitJob(ctx context.Context, limit time.Duration, id string) (j lab.Job, err error) {
	_, err = s.await(ctx, limit, func(ctx context.Context) (bool, error) {
		j, err = s.cfg.Store.Job(ctx, id)
		return j.State.Ended(), err
	})
	return j, err
}

// awaitOperation answers the operation once it has ended or the limit passed.
func (s *Server) awaitOperation(ctx context.Context, limit time.Duration, id string) (op lab.Operation, err error) {
	_, err = s.await(ctx, limit, func(ctx context.Context) (bool, error) {
		op, err = s.cfg.Store.Operation(ctx, id)
		return op.State.Ended(), err
	})
	return op, err
}
