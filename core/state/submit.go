package state

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Submission is a request turned into rows. What is nil is left out.
type Submission struct {
	Sandbox   *lab.Sandbox
	Reserve   *Range // what Sandbox is given at once, see Store.Reserve; it is PROVISIONING then
	Job       *lab.Job
	Operation *lab.Operation
	Events    []lab.Event
}

// Submit inserts the rows and their events in one transaction. A name that a
// live sandbox has, or a second open operation of one kind on one subject, is
// fault.Exists. Where it succeeds, sub.Sandbox is as its row is.
func (s *Store) Submit(ctx context.Context, sub Submission) error {
	var given *lab.Sandbox
	err := s.write(ctx, "submit", func(ctx context.Context, t *tx) error {
		if sb := sub.Sandbox; sb != nil {
			if err := t.insertSandbox(ctx, *sb); err != nil {
				return named(err, fault.New(fault.Exists, "sandbox name %q is taken", sb.Name).
					WithHint("choose another; agentlab sandbox show %s tells what has this one", sb.Name))
			}
		}
		if sub.Reserve != nil {
			sb, err := t.provision(ctx, *sub.Sandbox, *sub.Reserve)
			if err != nil {
				return err
			}
			given = &sb
		}
		if j := sub.Job; j != nil {
			if err := t.insertJob(ctx, *j); err != nil {
				return named(err, fault.New(fault.Exists, "job %s exists", j.ID))
			}
		}
		if o := sub.Operation; o != nil {
			t.touched[o.Subject] = true
			if err := t.insertOperation(ctx, *o, ""); err != nil {
				return named(err, fault.New(fault.Exists, "an operation %s is already open for sandbox %s", o.Kind, o.Subject))
			}
		}
		return t.emitAll(ctx, sub.Events)
	})
	if err == nil && given != nil {
		*sub.Sandbox = *given
	}
	return err
}

// provision gives a new sandbox its VMID and address.
func (t *tx) provision(ctx context.Context, sb lab.Sandbox, r Range) (lab.Sandbox, error) {
	sb, err := t.reserve(ctx, sb, r)
	if err != nil {
		return sb, err
	}
	err = SandboxChange{ID: sb.ID, To: lab.SandboxProvisioning}.apply(ctx, t)
	sb.State = lab.SandboxProvisioning
	return sb, err
}

// SubmitJob writes a job and its operation for a sandbox that is there already.
// fault.Precondition unless the sandbox is READY and nothing is being done to it.
func (s *Store) SubmitJob(ctx context.Context, j lab.Job, o lab.Operation) error {
	return s.write(ctx, "submit "+string(o.Kind), func(ctx context.Context, t *tx) error {
		sb, err := readSandbox(ctx, t, j.SandboxID)
		if err != nil {
			return err
		}
		open, err := many(ctx, t, scanOperation, "operations", `SELECT `+operationColumns+` FROM operations
			WHERE subject = ? AND ended_at = 0`, j.SandboxID)
		if err != nil {
			return err
		}
		if err := CheckFree(sb, open); err != nil {
			return err
		}
		if err := t.insertJob(ctx, j); err != nil {
			return named(err, fault.New(fault.Exists, "job %s exists", j.ID))
		}
		t.touched[o.Subject] = true
		if err := t.exec(ctx, `UPDATE sandboxes SET job_id = ? WHERE id = ?`, j.ID, sb.ID); err != nil {
			return err
		}
		return t.insertOperation(ctx, o, "")
	})
}

// CheckFree is fault.Precondition unless a job may begin in the sandbox, on
// which these operations are open.
func CheckFree(sb lab.Sandbox, open []lab.Operation) error {
	if sb.State == lab.SandboxReady && len(open) == 0 {
		return nil
	}
	refusal := fault.New(fault.Precondition, "sandbox %s is not free: it is %s", sb.Name, sb.State)
	if sb.State.Starting() {
		return refusal.WithHint("%s", lab.WaitHint(sb.Name))
	}
	return refusal.WithHint("a job needs a READY sandbox in which nothing runs; agentlab sandbox show %s tells more", sb.Name)
}

// named puts words for people in place of the database's own when something exists.
func named(err error, taken *fault.Error) error {
	if err = classify(err); !errors.Is(err, fault.Exists) {
		return err
	}
	return taken
}

// Commit is a set of changes that happen together or not at all. It is how an
// operation's worker writes.
type Commit struct {
	Operations []OperationChange
	Sandboxes  []SandboxChange
	Jobs       []JobChange
	Attempted  []string // sandbox ids; a VM of the VMID they hold may exist from now on
	Tokens     []Token
	Extend     []Extension
	Revoke     []string        // sandbox ids whose credentials end
	Submit     []lab.Operation // left out where one of that kind is open for the subject
	Events     []lab.Event
}

// Commit applies c. fault.Conflict: a row is no longer what the change was
// based on; nothing was written.
func (s *Store) Commit(ctx context.Context, c Commit) error {
	return s.write(ctx, "commit", func(ctx context.Context, t *tx) error { return t.apply(ctx, c) })
}

func (t *tx) apply(ctx context.Context, c Commit) error {
	for _, o := range c.Operations {
		if err := o.apply(ctx, t); err != nil {
			return err
		}
	}
	for _, sb := range c.Sandboxes {
		if err := sb.apply(ctx, t); err != nil {
			return err
		}
	}
	for _, j := range c.Jobs {
		if err := j.apply(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", j, err)
		}
	}
	for _, id := range c.Attempted {
		if err := t.markAttempted(ctx, id); err != nil {
			return err
		}
	}
	for _, k := range c.Tokens {
		if err := k.apply(ctx, t); err != nil {
			return err
		}
	}
	for _, e := range c.Extend {
		if err := e.apply(ctx, t); err != nil {
			return err
		}
	}
	for _, id := range c.Revoke {
		if err := t.revoke(ctx, id); err != nil {
			return err
		}
	}
	for _, o := range c.Submit {
		t.touched[o.Subject] = true
		if err := t.insertOperation(ctx, o, " ON CONFLICT DO NOTHING"); err != nil {
			return err
		}
	}
	return t.emitAll(ctx, c.Events)
}

// SandboxChange is one step of a sandbox to another state.
type SandboxChange struct {
	ID     string
	From   []lab.SandboxState // when set, the present state must be one of them
	To     lab.SandboxState
	Reason string // kept as it is when empty, unless To is READY or RUNNING
}

// apply does nothing when the sandbox is in that state. Destroyed frees what it
// held and revokes its credentials.
func (c SandboxChange) apply(ctx context.Context, t *tx) error {
	sb, err := readSandbox(ctx, t, c.ID)
	if err != nil || sb.State == c.To {
		return err
	}
	if err := c.check(sb); err != nil {
		return err
	}
	reason := sb.Reason
	if c.Reason != "" || c.To == lab.SandboxReady || c.To == lab.SandboxRunning {
		reason = c.Reason
	}
	var ended int64
	if !c.To.Live() {
		ended = millis(t.now)
		if err := t.exec(ctx, `DELETE FROM addresses WHERE sandbox_id = ? AND burned = 0`, sb.ID); err != nil {
			return err
		}
		if err := t.revoke(ctx, sb.ID); err != nil {
			return err
		}
	}
	ok, err := t.change(ctx, `UPDATE sandboxes SET state = ?, reason = ?, ended_at = ? WHERE id = ? AND state = ?`, c.To, reason, ended, sb.ID, sb.State)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Conflict, "sandbox %s was changed by somebody else", sb.ID)
	}
	return t.emit(ctx, lab.Event{
		Type: lab.EventSandboxChanged, SandboxID: sb.ID, JobID: sb.JobID, Message: c.Reason,
		Fields: map[string]string{"from": string(sb.State), "to": string(c.To), "reason": c.Reason},
	})
}

func (c SandboxChange) check(sb lab.Sandbox) error {
	expected := len(c.From) == 0
	for _, from := range c.From {
		expected = expected || from == sb.State
	}
	if !expected {
		return fault.New(fault.Conflict, "sandbox %s is %s, expected was %v", sb.ID, sb.State, c.From)
	}
	if err := sb.State.To(c.To); err != nil {
		return fault.New(fault.Precondition, "sandbox %s: %w", sb.ID, err)
	}
	return nil
}
