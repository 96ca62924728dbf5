package lab

import "time"

// OperationKind names a fixed list of steps in core/scheduler.
type OperationKind string

// The kinds.
const (
	OpCreateSandbox  OperationKind = "create-sandbox"
	OpRunJob         OperationKind = "run-job"
	OpDestroySandbox OperationKind = "destroy-sandbox"
)

// OperationState is where an operation stands.
type OperationState string

// Undoing means that a step failed for good, and what the operation made is
// being taken back.
const (
	OpPending   OperationState = "PENDING"
	OpRunning   OperationState = "RUNNING"
	OpUndoing   OperationState = "UNDOING"
	OpDone      OperationState = "DONE"
	OpFailed    OperationState = "FAILED"
	OpCancelled OperationState = "CANCELLED"
)

// Operation is work on one subject, done step by step by one worker. Step and
// Attempt are written before the step begins, so that after a crash the same
// step is called again.
type Operation struct {
	ID         string // "op_…"
	Kind       OperationKind
	Subject    string // sandbox id
	JobID      string // for run-job, and for create-sandbox on behalf of a job
	State      OperationState
	Step       string // name of the step that runs or ran last
	StepIndex  int    // its place in the kind's list, from 0
	Attempt    int    // from 1
	Error      string // of the last failure, redacted
	ErrorClass string // fault class of it
	Hint       string
	Cancel     bool      // somebody asked to stop it
	NotBefore  time.Time // retry not earlier
	Deadline   time.Time
	CreatedAt  time.Time
	UpdatedAt  time.Time
	EndedAt    time.Time
}

var operationTransitions = map[OperationState][]OperationState{
	OpPending:   {OpRunning, OpCancelled, OpFailed},
	OpRunning:   {OpDone, OpUndoing, OpFailed, OpCancelled},
	OpUndoing:   {OpFailed, OpCancelled},
	OpDone:      {},
	OpFailed:    {},
	OpCancelled: {},
}

// Ended reports whether the state is final.
func (s OperationState) Ended() bool { return len(operationTransitions[s]) == 0 }
