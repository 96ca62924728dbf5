package state

import (
	"context"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// CancelOperation asks the operation to stop and returns it as it is then: what
// create-sandbox made is taken back, and work for a job ends as RequestCancel
// ends it. Asking again is no error, nor is asking one that is being undone
// anyway. fault.Precondition: it has ended otherwise, or is of a kind that is
// never left half done.
func (s *Store) CancelOperation(ctx context.Context, id string) (o lab.Operation, err error) {
	err = s.write(ctx, "cancel operation", func(ctx context.Context, t *tx) error {
		if o, err = readOperation(ctx, t, id); err != nil {
			return err
		}
		if was, err := t.wasCancelled(ctx, o); err != nil || was {
			return err
		}
		if err := cancellable(o); err != nil || o.Cancel || o.State == lab.OpUndoing {
			return err
		}
		if err := t.cancel(ctx, o); err != nil {
			return err
		}
		o, err = readOperation(ctx, t, id)
		return err
	})
	return o, err
}

// wasCancelled reports whether the operation, or the job it was for, ended as
// somebody asked.
func (t *tx) wasCancelled(ctx context.Context, o lab.Operation) (bool, error) {
	if o.State != lab.OpDone || o.JobID == "" {
		return o.State == lab.OpCancelled, nil
	}
	j, err := readJob(ctx, t, o.JobID)
	return j.State == lab.JobCancelled, err
}

func cancellable(o lab.Operation) error {
	switch {
	case o.State.Ended():
		return fault.New(fault.Precondition, "operation %s has ended: %s", o.ID, o.State).WithResource("operation %s", o.ID)
	case o.Kind == lab.OpDestroySandbox:
		return fault.New(fault.Precondition, "%s cannot be cancelled: what it removed is not brought back, and half a sandbox helps nobody", o.Kind).
			WithResource("operation %s", o.ID).WithHint("let it end; while a step fails it is tried again, see: agentlab operation show %s", o.ID)
	case o.Kind != lab.OpCreateSandbox && o.Kind != lab.OpRunJob:
		return fault.New(fault.Precondition, "%s cannot be cancelled", o.Kind).WithResource("operation %s", o.ID)
	}
	return nil
}

// cancel leaves the input that stops the operation. The flag of a run-job is
// for destroy-sandbox alone: a cancelled job still reports and is finished.
func (t *tx) cancel(ctx context.Context, o lab.Operation) error {
	if o.JobID != "" {
		return t.cancelJob(ctx, o.JobID)
	}
	if err := t.exec(ctx, `UPDATE operations SET cancel = 1 WHERE id = ?`, o.ID); err != nil {
		return err
	}
	t.touched[o.Subject] = true
	return t.emit(ctx, lab.Event{
		Type: lab.EventOperationCancel, SandboxID: o.Subject, Operation: o.ID,
		Fields: map[string]string{"kind": string(o.Kind), "step": o.Step},
	})
}
