package api

import "time"

// SandboxCreate asks for a sandbox without a job.
type SandboxCreate struct {
	ID         string `json:"id,omitempty" doc:"sbx_ and 16 letters and digits of base32; a request sent again with its id answers what it made the first time"`
	Profile    string `json:"profile" doc:"profile name"`
	Name       string `json:"name,omitempty" doc:"unique name; chosen when empty"`
	TTLSeconds int64  `json:"ttl_seconds,omitempty" minimum:"0" doc:"lease; 0 takes the profile's"`
	Keep       bool   `json:"keep,omitempty" doc:"do not expire"`
}

// JobCreate asks for a job in a new sandbox.
type JobCreate struct {
	ID         string `json:"id,omitempty" doc:"job_ and 16 letters and digits of base32; a request sent again with its id answers what it made the first time"`
	Profile    string `json:"profile,omitempty" doc:"profile name; with sandbox, the sandbox's own when empty"`
	Sandbox    string `json:"sandbox,omitempty" doc:"VMID, name or id of a READY sandbox to run in, instead of a new one"`
	Task       string `json:"task" doc:"what the agent shall do"`
	RepoURL    string `json:"repo_url,omitempty" doc:"git URL reachable from the sandbox; or repo_id"`
	RepoID     string `json:"repo_id,omitempty" doc:"id of an uploaded repository"`
	Ref        string `json:"ref,omitempty" doc:"branch, tag or commit"`
	Mode       string `json:"mode,omitempty" enum:"default,dangerous" doc:"overrides the profile's agent mode"`
	TTLSeconds int64  `json:"ttl_seconds,omitempty" minimum:"0" doc:"longest run time; 0 takes the profile's"`
	Keep       bool   `json:"keep,omitempty" doc:"keep the sandbox after the job"`
}

// Accepted answers every request that takes time: 202, with what was made.
type Accepted struct {
	Operation Operation `json:"operation"`
	Sandbox   *Sandbox  `json:"sandbox,omitempty"`
	Job       *Job      `json:"job,omitempty"`
}

// Sandbox is one sandbox as clients see it.
type Sandbox struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	VMID      uint32     `json:"vmid"`
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"`
	Profile   string     `json:"profile"`
	Template  string     `json:"template"`
	Address   string     `json:"address,omitempty"`
	MAC       string     `json:"mac,omitempty"`
	Network   string     `json:"network_mode"`
	Cores     uint32     `json:"cores"`
	MemoryMB  uint64     `json:"memory_mb"`
	SSHUser   string     `json:"ssh_user,omitempty"`
	HostKey   string     `json:"host_key,omitempty" doc:"reported by the guest"`
	JobID     string     `json:"job_id,omitempty"`
	Keep      bool       `json:"keep,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	ReadyAt   *time.Time `json:"ready_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
}

// Job is one job as clients see it.
type Job struct {
	ID        string     `json:"id"`
	SandboxID string     `json:"sandbox_id"`
	VMID      uint32     `json:"vmid"`
	State     string     `json:"state"`
	Reason    string     `json:"reason,omitempty"`
	ExitCode  *int       `json:"exit_code,omitempty"`
	Stage     string     `json:"stage,omitempty" doc:"what the guest does, until the job has ended"`
	Task      string     `json:"task"`
	Profile   string     `json:"profile"`
	Repo      string     `json:"repo,omitempty" doc:"URL, or id of the uploaded repository"`
	Ref       string     `json:"ref,omitempty"`
	Commit    string     `json:"commit,omitempty"`
	LogBytes  int64      `json:"log_bytes"`
	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	Deadline  *time.Time `json:"deadline,omitempty" doc:"when its time is over; the host waits a little longer for the guest's report"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Artifacts []Artifact `json:"artifacts,omitempty"`
	Events    []Event    `json:"events,omitempty" doc:"newest, oldest first, when asked for"`
}

// Artifact is one file of a job.
type Artifact struct {
	Path      string    `json:"path"`
	Size      int64     `json:"size"`
	SHA256    string    `json:"sha256"`
	Flagged   string    `json:"flagged,omitempty"`
	File      string    `json:"file,omitempty" doc:"path on the host"`
	CreatedAt time.Time `json:"created_at"`
}

// Operation is one piece of work as clients see it.
type Operation struct {
	ID              string     `json:"id"`
	Kind            string     `json:"kind"`
	SandboxID       string     `json:"sandbox_id,omitempty"`
	JobID           string     `json:"job_id,omitempty"`
	State           string     `json:"state"`
	Step            string     `json:"step,omitempty"`
	Attempt         int        `json:"attempt,omitempty"`
	Error           string     `json:"error,omitempty"`
	Class           string     `json:"class,omitempty"`
	Hint            string     `json:"hint,omitempty"`
	CancelRequested bool       `json:"cancel_requested,omitempty" doc:"it stops: somebody asked, or its sandbox goes"`
	CreatedAt       time.Time  `json:"created_at"`
	UpdatedAt       *time.Time `json:"updated_at,omitempty"`
	RetryAt         *time.Time `json:"retry_at,omitempty" doc:"the step is not tried again before"`
	Deadline        *time.Time `json:"deadline,omitempty" doc:"of the step"`
	EndedAt         *time.Time `json:"ended_at,omitempty"`
	Steps           []Step     `json:"steps,omitempty" doc:"of one operation, when it is asked for by id"`
}

// Step is one step of an operation.
type Step struct {
	Name    string `json:"name"`
	State   string `json:"state" enum:"pending,running,failed,done,undoing,undone,skipped,stopped"`
	Attempt int    `json:"attempt,omitempty"`
	TookMS  int64  `json:"took_ms,omitempty" doc:"of the last attempt that ended well"`
	Error   string `json:"error,omitempty" doc:"of the last attempt that did not"`
}

// Event is one event as clients see it, also as the data of an SSE message.
type Event struct {
	ID        int64             `json:"id"`
	At        time.Time         `json:"at"`
	Type      string            `json:"type"`
	SandboxID string            `json:"sandbox_id,omitempty"`
	JobID     string            `json:"job_id,omitempty"`
	Operation string            `json:"operation,omitempty"`
	Message   string            `json:"message,omitempty"`
	Fields    map[string]string `json:"fields,omitempty"`
}

// List holds the rows of a listing; it is an object so that it can grow.
type List[T any] struct {
	Items []T `json:"items"`
}

// Health answers /healthz.
type Health struct {
	OK bool `json:"ok"`
}

// Profile is one usable profile.
type Profile struct {
	Name          string   `json:"name"`
	Template      string   `json:"template" doc:"VMID in digits, or name"`
	Cores         uint32   `json:"cores"`
	MemoryMB      uint64   `json:"memory_mb"`
	DiskGB        uint64   `json:"disk_gb,omitempty"`
	NetworkMode   string   `json:"network_mode"`
	NetworkAllow  []string `json:"network_allow,omitempty"`
	AgentCommand  string   `json:"agent_command,omitempty"`
	AgentMode     string   `json:"agent_mode,omitempty"`
	InnerSandbox  string   `json:"inner_sandbox,omitempty"`
	SecretsBundle string   `json:"secrets_bundle,omitempty"`
	OnJobEnd      string   `json:"on_job_end"`
	TTLSeconds    int64    `json:"ttl_seconds"`
}

// Repo is an uploaded repository.
type Repo struct {
	ID   string `json:"id"`
	Size int64  `json:"size"`
}

// Plugin is one plugin as the daemon sees it.
type Plugin struct {
	Kind         string     `json:"kind"`
	Name         string     `json:"name"`
	Version      string     `json:"version,omitempty"`
	State        string     `json:"state" doc:"starting, ready, degraded, backoff, quarantined, failed or stopped"`
	Since        time.Time  `json:"since" doc:"of the state"`
	Message      string     `json:"message,omitempty" doc:"why it is not ready, and what comes next"`
	CrashID      string     `json:"crash_id,omitempty" doc:"report about the message"`
	NextStart    *time.Time `json:"next_start,omitempty"`
	Path         string     `json:"path,omitempty"`
	PID          int        `json:"pid,omitempty"`
	Capabilities []string   `json:"capabilities,omitempty"`
	StartedAt    *time.Time `json:"started_at,omitempty"`
}

// Status is the daemon at a glance.
type Status struct {
	Version          string         `json:"version"`
	StartedAt        time.Time      `json:"started_at"`
	Plugins          []Plugin       `json:"plugins"`
	Sandboxes        map[string]int `json:"sandboxes" doc:"count by state"`
	Jobs             map[string]int `json:"jobs" doc:"count by state"`
	ArtifactBytes    int64          `json:"artifact_bytes"`
	DiskFreeBytes    int64          `json:"disk_free_bytes" doc:"where artifacts are kept"`
	Problems         []string       `json:"problems,omitempty"`
	FailedOperations []Operation    `json:"failed_operations,omitempty" doc:"newest five"`
}

// Host describes the daemon's host to remote clients.
type Host struct {
	Version     string `json:"version"`
	HostUUID    string `json:"host_uuid"`
	AgentSubnet string `json:"agent_subnet"`
	Dev         bool   `json:"dev,omitempty"`
	LogFile     string `json:"log_file,omitempty" doc:"of the daemon, on its host"`
	SSHKey      string `json:"ssh_public_key_path,omitempty" doc:"of the key that new sandboxes know, on the daemon's host"`
}

// Problem is every error body (RFC 9457, application/problem+json).
type Problem struct {
	Type     string   `json:"type"`
	Title    string   `json:"title"`
	Status   int      `json:"status"`
	Detail   string   `json:"detail"`
	Class    string   `json:"class"` // of sdk/fault
	Hint     string   `json:"hint,omitempty"`
	Resource string   `json:"resource,omitempty"`
	Errors   []string `json:"errors,omitempty"` // one per field or line
}
