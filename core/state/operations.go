package state

import (
	"context"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

const operationColumns = `id, kind, subject, job_id, state, step, step_index, attempt, error, error_class, hint, cancel,
	not_before, deadline, created_at, updated_at, ended_at`

func scanOperation(row scanner) (o lab.Operation, err error) {
	var notBefore, deadline, created, updated, ended int64
	err = row.Scan(&o.ID, &o.Kind, &o.Subject, &o.JobID, &o.State, &o.Step, &o.StepIndex, &o.Attempt, &o.Error, &o.ErrorClass,
		&o.Hint, &o.Cancel, &notBefore, &deadline, &created, &updated, &ended)
	o.NotBefore, o.Deadline = fromMillis(notBefore), fromMillis(deadline)
	o.CreatedAt, o.UpdatedAt, o.EndedAt = fromMillis(created), fromMillis(updated), fromMillis(ended)
	return o, err
}

func (t *tx) insertOperation(ctx context.Context, o lab.Operation, orIgnore string) error {
	return t.exec(ctx, `INSERT INTO operations (`+operationColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`+orIgnore,
		o.ID, o.Kind, o.Subject, o.JobID, o.State, o.Step, o.StepIndex, o.Attempt, o.Error, o.ErrorClass, o.Hint, o.Cancel,
		millis(o.NotBefore), millis(o.Deadline), millis(o.CreatedAt), millis(t.now), millis(o.EndedAt))
}

// Operation gives the operation of that id, or fault.NotFound.
func (s *Store) Operation(ctx context.Context, id string) (lab.Operation, error) {
	return readOperation(ctx, s.reader, id)
}

func readOperation(ctx context.Context, q queryer, id string) (lab.Operation, error) {
	return one(ctx, q, scanOperation, "operation "+id, `SELECT `+operationColumns+` FROM operations WHERE id = ?`, id)
}

// OperationFilter selects operations; the zero value selects all.
type OperationFilter struct {
	Subject string
	JobID   string
	Open    bool // only those that have not ended
	States  []lab.OperationState
	Limit   int // of the newest; 0 is no limit
}

// Operations lists, oldest first.
func (s *Store) Operations(ctx context.Context, f OperationFilter) ([]lab.Operation, error) {
	var w where
	w.equal("subject", f.Subject)
	w.equal("job_id", f.JobID)
	if f.Open {
		w.add("ended_at = 0")
	}
	in(&w, "state", f.States)
	return many(ctx, s.reader, scanOperation, "operations",
		newest(`SELECT seq, `+operationColumns+` FROM operations`, operationColumns, &w, f.Limit), w.args...)
}

// OperationChange replaces Was with Now, if the row still is as Was says in
// state, place, attempt and cancel flag; else it is fault.Conflict. The flag
// itself is an input and is not written.
type OperationChange struct{ Was, Now lab.Operation }

func (c OperationChange) apply(ctx context.Context, t *tx) error {
	if c.Was.State != c.Now.State {
		if err := c.Was.State.To(c.Now.State); err != nil {
			return fault.New(fault.Precondition, "operation %s: %w", c.Was.ID, err)
		}
	}
	n := c.Now
	if n.State.Ended() {
		n.EndedAt = t.now
	}
	ok, err := t.change(ctx, `UPDATE operations SET state = ?, step = ?, step_index = ?, attempt = ?, error = ?, error_class = ?,
		hint = ?, not_before = ?, deadline = ?, updated_at = ?, ended_at = ?
		WHERE id = ? AND state = ? AND step = ? AND step_index = ? AND attempt = ? AND cancel = ?`,
		n.State, n.Step, n.StepIndex, n.Attempt, n.Error, n.ErrorClass, n.Hint, millis(n.NotBefore), millis(n.Deadline),
		millis(t.now), millis(n.EndedAt), c.Was.ID, c.Was.State, c.Was.Step, c.Was.StepIndex, c.Was.Attempt, c.Was.Cancel)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Conflict, "operation %s was changed by somebody else", c.Was.ID)
	}
	t.touched[n.Subject] = true
	return nil
}

// SubmitDestroy opens the destroy-sandbox operation o and asks every other open
// operation of its subject to stop. When one is open already, that one is
// returned; for a destroyed sandbox it is the one that did it. Because, unless it is
// empty, becomes the sandbox's reason with the operation that is opened.
func (s *Store) SubmitDestroy(ctx context.Context, o lab.Operation, because string) (lab.Operation, error) {
	err := s.write(ctx, "submit "+string(o.Kind), func(ctx context.Context, t *tx) error {
		sb, err := readSandbox(ctx, t, o.Subject)
		if err != nil {
			return err
		}
		earlier, err := many(ctx, t, scanOperation, "operations", `SELECT `+operationColumns+` FROM operations
			WHERE subject = ? AND kind = ? ORDER BY seq DESC LIMIT 1`, o.Subject, o.Kind)
		if err != nil {
			return err
		}
		if len(earlier) == 1 && (!earlier[0].State.Ended() || !sb.State.Live()) {
			o = earlier[0]
			return nil
		}
		if !sb.State.Live() {
			return fault.New(fault.Precondition, "sandbox %s is destroyed", sb.Name)
		}
		t.touched[o.Subject] = true
		err = t.exec(ctx, `UPDATE operations SET cancel = 1 WHERE subject = ? AND ended_at = 0`, o.Subject)
		if err != nil {
			return err
		}
		if because != "" {
			if err := t.exec(ctx, `UPDATE sandboxes SET reason = ? WHERE id = ?`, because, o.Subject); err != nil {
				return err
			}
		}
		return t.insertOperation(ctx, o, "")
	})
	return o, err
}
