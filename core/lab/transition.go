package lab

import (
	"fmt"
	"slices"
)

// TransitionError says that a state change is not in the table.
type TransitionError struct{ What, From, To string }

func (e *TransitionError) Error() string {
	return fmt.Sprintf("%s cannot go from %s to %s", e.What, e.From, e.To)
}

func allowed[S ~string](what string, table map[S][]S, from, to S) error {
	if slices.Contains(table[from], to) {
		return nil
	}
	return &TransitionError{What: what, From: string(from), To: string(to)}
}

// To checks the change against the table of sandbox states.
func (s SandboxState) To(next SandboxState) error {
	return allowed("sandbox", sandboxTransitions, s, next)
}

// To checks the change against the table of job states.
func (s JobState) To(next JobState) error { return allowed("job", jobTransitions, s, next) }

// To checks the change against the table of operation states.
func (s OperationState) To(next OperationState) error {
	return allowed("operation", operationTransitions, s, next)
}
