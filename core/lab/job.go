package lab

import "time"

// JobState is where a job stands.
type JobState string

// A job ends exactly once, in one of the last four.
const (
	JobQueued    JobState = "QUEUED"
	JobRunning   JobState = "RUNNING"
	JobCompleted JobState = "COMPLETED"
	JobFailed    JobState = "FAILED"
	JobTimeout   JobState = "TIMEOUT"
	JobCancelled JobState = "CANCELLED"
)

// Job is one run of an agent on a repository in a sandbox.
type Job struct {
	ID        string // "job_…"
	SandboxID string
	State     JobState
	Reason    string // why it did not complete, for people
	ExitCode  int    // the agent's; -1 until known
	Task      string
	Profile   string
	RepoURL   string // set, or RepoBundle is
	RepoID    string // id of the uploaded repository
	Ref       string // branch, tag or commit to check out; "" is the repository's HEAD
	Mode      string // default, dangerous
	TTL       time.Duration
	Borrowed  bool   // runs in a sandbox that was not made for it, and stays
	Stage     string // what the guest does now: "clone", "agent", "upload"

	// Inputs to the run-job operation, written by API and guest, read by the
	// operation's worker.
	CancelRequested bool
	Reported        *JobReport // the guest's final word, nil until it came
	LastSeen        time.Time  // last sign of life of the guest

	CreatedAt time.Time
	StartedAt time.Time // guest began
	Deadline  time.Time // host's authority; zero until started
	EndedAt   time.Time
}

// JobReport is what the guest says about a finished job.
type JobReport struct {
	Status   string    `json:"status"` // completed, failed, timeout, cancelled
	ExitCode int       `json:"exit_code"`
	Commit   string    `json:"commit,omitempty"`
	Message  string    `json:"message,omitempty"` // redacted
	Uploaded bool      `json:"uploaded"`          // artifacts arrived whole
	At       time.Time `json:"at"`
}

var jobTransitions = map[JobState][]JobState{
	JobQueued:    {JobRunning, JobFailed, JobTimeout, JobCancelled},
	JobRunning:   {JobCompleted, JobFailed, JobTimeout, JobCancelled},
	JobCompleted: {},
	JobFailed:    {},
	JobTimeout:   {},
	JobCancelled: {},
}

// Ended reports whether the state is final.
func (s JobState) Ended() bool { return len(jobTransitions[s]) == 0 }

// Artifact is one file a job left behind. There is one row per (job, path).
type Artifact struct {
	JobID     string
	Path      string // relative, slash separated, clean
	Size      int64  // bytes
	SHA256    string // hex
	MIME      string
	Flagged   string // what a scan found, "" for nothing
	CreatedAt time.Time
}
