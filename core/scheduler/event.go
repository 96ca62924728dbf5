package scheduler

import (
	"cmp"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// event names the operation and its step.
func (w *work) event(typ string, op lab.Operation, message string, fields map[string]string) lab.Event {
	return lab.Event{
		Type: typ, SandboxID: op.Subject, JobID: cmp.Or(op.JobID, w.sb.JobID), Operation: op.ID, Message: message,
		Fields: with(fields, "kind", string(op.Kind), "step", op.Step),
	}
}

func (w *work) failure(cause error, fields map[string]string) lab.Event {
	message, class, hint := describe(cause)
	return w.event(lab.EventStepFailed, w.op, firstLine(message), with(fields, "class", class, "error", message, "hint", hint))
}

func (w *work) ended(op lab.Operation) lab.Event {
	return lab.Event{
		Type: lab.EventOperationEnded, SandboxID: op.Subject, JobID: cmp.Or(op.JobID, w.sb.JobID), Operation: op.ID, Message: firstLine(op.Error),
		Fields: with(nil, "kind", string(op.Kind), "state", string(op.State), "error", op.Error, "class", op.ErrorClass, "hint", op.Hint),
	}
}

func describe(err error) (message, class, hint string) {
	if errors.Is(err, errCancelled) {
		return "cancelled", string(fault.Conflict), ""
	}
	return err.Error(), string(fault.ClassOf(err)), fault.HintOf(err)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func tookField(d time.Duration) map[string]string {
	return map[string]string{"took_ms": strconv.FormatInt(d.Milliseconds(), 10)}
}

// with gives a copy of the fields with pairs added; empty values are left out.
func with(fields map[string]string, pairs ...string) map[string]string {
	out := maps.Clone(fields)
	if out == nil {
		out = map[string]string{}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			out[pairs[i]] = pairs[i+1]
		}
	}
	return out
}

// merge puts several sets of changes into one, in order.
func merge(all ...state.Commit) state.Commit {
	var m state.Commit
	for _, c := range all {
		m.Operations = append(m.Operations, c.Operations...)
		m.Sandboxes = append(m.Sandboxes, c.Sandboxes...)
		m.Jobs = append(m.Jobs, c.Jobs...)
		m.Attempted = append(m.Attempted, c.Attempted...)
		m.Tokens = append(m.Tokens, c.Tokens...)
		m.Extend = append(m.Extend, c.Extend...)
		m.Revoke = append(m.Revoke, c.Revoke...)
		m.Submit = append(m.Submit, c.Submit...)
		m.Events = append(m.Events, c.Events...)
	}
	return m
}
