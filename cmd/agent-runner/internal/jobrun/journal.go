package jobrun

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// phase is how far a job is.
type phase string

const (
	phaseCloning  phase = "cloning"  // may be begun again
	phaseRunning  phase = "running"  // the agent was started: never again
	phaseEnded    phase = "ended"    // Outcome is set, not all is uploaded
	phaseReported phase = "reported" // nothing is left to do
)

// journal is what must survive a restart. It is written before each phase.
type journal struct {
	Job       string    `json:"job"`
	Phase     phase     `json:"phase"`
	BootID    string    `json:"boot_id"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	RepoDir   string    `json:"repo_dir,omitempty"`
	Head      string    `json:"head,omitempty"` // checked out
	Base      string    `json:"base,omitempty"` // what changes.bundle builds on
	Outcome   outcome   `json:"outcome,omitzero"`
}

// Statuses of a job, as in guestapi.Report.
const (
	statusCompleted = "completed"
	statusFailed    = "failed"
	statusTimeout   = "timeout"
	statusCancelled = "cancelled"
)

// Exit codes that are not the agent's own.
const (
	exitTimeout   = 124
	exitOurs      = 125
	exitCancelled = 130
)

// outcome is how a job went.
type outcome struct {
	Status   string `json:"status,omitempty"`
	ExitCode int    `json:"exit_code"`
	Message  string `json:"message,omitempty"`
}

func failed(format string, args ...any) outcome {
	return outcome{statusFailed, exitOurs, fmt.Sprintf(format, args...)}
}

// load reads the journal of the job. os.ErrNotExist: there is none, or another
// job's.
func load(l layout.Layout, job string) (journal, error) {
	b, err := os.ReadFile(l.Journal())
	if err != nil {
		return journal{}, fmt.Errorf("read journal: %w", err)
	}
	var j journal
	if err := json.Unmarshal(b, &j); err != nil {
		return journal{}, fmt.Errorf("read journal: %w", err)
	}
	switch j.Job {
	case job:
		return j, nil
	case "":
		return journal{}, errors.New("read journal: it names no job")
	}
	return journal{}, fmt.Errorf("read journal: it is of %s: %w", j.Job, os.ErrNotExist)
}

func (j journal) save(l layout.Layout) error {
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("encode journal: %w", err)
	}
	if err := layout.WriteFile(l.Journal(), append(b, '\n'), 0o600, layout.Owner{}); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}
