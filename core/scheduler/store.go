package scheduler

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

// Store is what the scheduler asks of *state.Store, by role.
type Store interface {
	submitter
	worker
	addresser
	lookup
	keeper
}

// submitter turns requests into rows.
type submitter interface {
	Submit(ctx context.Context, sub state.Submission) error
	SubmitJob(ctx context.Context, j lab.Job, o lab.Operation) error
	SubmitDestroy(ctx context.Context, o lab.Operation, because string) (lab.Operation, error)
	RequestCancel(ctx context.Context, jobID string) error
	CancelOperation(ctx context.Context, id string) (lab.Operation, error)
}

// worker is how an operation's worker writes and is woken.
type worker interface {
	Commit(ctx context.Context, c state.Commit) error
	AppendEvent(ctx context.Context, e lab.Event) error
	WatchSandbox(id string) (wake <-chan struct{}, stop func())
	WriteFailed() time.Time
}

// addresser keeps VMIDs and addresses.
type addresser interface {
	Reserve(ctx context.Context, sandboxID string, r state.Range) (lab.Sandbox, error)
	Reservation(ctx context.Context, sandboxID string) (state.Reservation, error)
	BurnVMID(ctx context.Context, b state.Burn) error
	BurnedFor(ctx context.Context, sandboxID string) (int, error)
}

// lookup reads single rows and lists.
type lookup interface {
	Sandbox(ctx context.Context, id string) (lab.Sandbox, error)
	Job(ctx context.Context, id string) (lab.Job, error)
	Jobs(ctx context.Context, f state.JobFilter) ([]lab.Job, error)
	Operation(ctx context.Context, id string) (lab.Operation, error)
	Operations(ctx context.Context, f state.OperationFilter) ([]lab.Operation, error)
}

// keeper is what the loops need.
type keeper interface {
	LeftSandboxes(ctx context.Context) ([]lab.Sandbox, error)
	BeginLease(ctx context.Context, sandboxID string, expires time.Time) error
	ExpiredSandboxes(ctx context.Context, limit int) ([]lab.Sandbox, error)
	Sandboxes(ctx context.Context, f state.SandboxFilter) ([]lab.Sandbox, error)
	IdleSandboxes(ctx context.Context, states ...lab.SandboxState) ([]lab.Sandbox, error)
	StrandedJobs(ctx context.Context) ([]lab.Job, error)
	ForgetArtifacts(ctx context.Context, jobID string) error
	PruneEvents(ctx context.Context, before time.Time) (more bool, err error)
	Repo(ctx context.Context, id string) (state.Repo, error)
	DeleteRepo(ctx context.Context, id string) error
	CollectRepos(ctx context.Context, before time.Time) ([]state.Repo, error)
	Ping(ctx context.Context) error
}
