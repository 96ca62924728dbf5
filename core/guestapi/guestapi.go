package guestapi

import (
	"encoding/json"
	"time"
)

// Paths of the guest API.
const (
	FetchPath  = "/v1/bootstrap/fetch" // POST FetchRequest → Payload
	RepoPath   = "/v1/repo"            // GET ?job= → repository archive, see core/gitrepo
	ReportPath = "/v1/runner/report"   // POST Report → ReportReply
	LogPath    = "/v1/runner/log"      // POST ?job=&offset=, body: bytes → LogReply
	UploadPath = "/upload"             // POST ?job=&path=&flagged=, body: file → UploadReply
)

// RunScript is what a repository brings to be run in place of an agent CLI.
const RunScript = ".agentlab/run.sh"

// Bootstrap is /etc/agentlab/bootstrap.json, written by the seed.
type Bootstrap struct {
	Token      string `json:"token"`
	Controller string `json:"controller"` // "http://10.77.0.1:8844"
	VMID       uint32 `json:"vmid"`
	Sandbox    string `json:"sandbox"`
}

// FetchRequest asks for the payload. On the first boot it carries the token and
// a credential that the guest made up and stored on its disk beforehand; the
// daemon binds the two, so the same pair may be sent again when an answer was
// lost, and a used token with any other credential is refused. Later calls
// leave Token empty and use the Authorization header.
type FetchRequest struct {
	Token      string `json:"token,omitempty"`
	Credential string `json:"credential,omitempty"` // 256 random bits, base64url
	HostKey    string `json:"host_key"`             // ssh-ed25519 …, authorized_keys form
	BootID     string `json:"boot_id"`
	Runner     string `json:"runner"` // version
}

// Payload is everything a sandbox is told: who it is, its secrets, its job.
type Payload struct {
	Sandbox string          `json:"sandbox"`
	VMID    uint32          `json:"vmid"`
	Secrets json.RawMessage `json:"secrets,omitempty"` // bundle document, format version 1
	Job     *Job            `json:"job,omitempty"`     // nil: nothing to run
}

// Job is what the runner shall do.
type Job struct {
	ID             string        `json:"id"`
	Task           string        `json:"task"`
	Profile        string        `json:"profile"`
	Mode           string        `json:"mode"`               // default, dangerous
	RepoURL        string        `json:"repo_url,omitempty"` // else fetched from RepoPath
	Ref            string        `json:"ref,omitempty"`
	RepoDir        string        `json:"repo_dir,omitempty"` // wish; "" lets the runner choose
	Command        string        `json:"command,omitempty"`  // profile's agent.command
	InnerSandbox   string        `json:"inner_sandbox,omitempty"`
	InnerArgs      []string      `json:"inner_sandbox_args,omitempty"`
	TTL            time.Duration `json:"ttl"`              // from the runner's start of the job
	LogMaxBytes    int64         `json:"log_max_bytes"`    // beyond it the job is failed
	UploadMaxBytes int64         `json:"upload_max_bytes"` // per file
	Attempt        int           `json:"attempt"`          // 1, more once the runner has reported a stage of it
}

// Report is a sign of life or a result.
type Report struct {
	Job   string `json:"job,omitempty"`
	Kind  string `json:"kind"` // see the Report… constants
	Stage string `json:"stage,omitempty"`
	// Wait is how long a heartbeat without a job may be left without an answer
	// while no job waits; up to LongestWait.
	Wait time.Duration `json:"wait,omitempty"`
	// For ReportFinished:
	Status   string `json:"status,omitempty"` // completed, failed, timeout, cancelled
	ExitCode int    `json:"exit_code,omitempty"`
	Commit   string `json:"commit,omitempty"`
	Message  string `json:"message,omitempty"`
	Uploaded bool   `json:"uploaded,omitempty"`
}

// Kinds of Report.
const (
	ReportHeartbeat = "heartbeat" // every HeartbeatEvery
	ReportStage     = "stage"     // Stage begins: clone, agent, upload
	ReportFinished  = "finished"  // last word about Job
)

// HeartbeatEvery is how often a runner with a job reports.
const HeartbeatEvery = 2 * time.Second

// LongestWait is how late a guest may learn that its host has gone, and so not long.
const LongestWait = 10 * time.Second

// ReportReply tells the runner what the host wants.
type ReportReply struct {
	Cancel bool `json:"cancel"`          // stop the agent, upload, report cancelled
	Fetch  bool `json:"fetch,omitempty"` // a job waits: fetch the payload again
}

// LogReply is the answer to a chunk: Offset is how many bytes the host has.
// A chunk at another offset answers 409 with the same body, so the runner goes
// on from there. 413: the log's quota is used up.
type LogReply struct {
	Offset int64 `json:"offset"`
}

// Upload is the query of UploadPath, and the body's size.
type Upload struct {
	Job     string
	Path    string
	Flagged string // what the runner found in it; the host looks itself, too
	Size    int64
}

// UploadReply names what was stored.
type UploadReply struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Names of artifacts that every job has or may have.
const (
	ArtifactLog     = "agent.log"
	ArtifactReport  = "report.json"
	ArtifactArchive = "agentlab-artifacts.tar.gz"
	ArtifactChanges = "changes.bundle"
)

// FlaggedSecret is what is said about a file that holds a secret.
const FlaggedSecret = "holds a value of the secrets bundle"

// JobResult is report.json.
type JobResult struct {
	Job             string    `json:"job"`
	Status          string    `json:"status"` // completed, failed, timeout, cancelled
	ExitCode        int       `json:"exit_code"`
	Message         string    `json:"message,omitempty"`
	StartedAt       time.Time `json:"started_at"`
	DurationSeconds float64   `json:"duration_seconds"`
	BaseCommit      string    `json:"base_commit,omitempty"`
	Commit          string    `json:"commit,omitempty"`          // HEAD after the agent
	Commits         int       `json:"commits"`                   // made on top of BaseCommit
	Flagged         []string  `json:"flagged,omitempty"`         // artifact files in which a secret was found
	ChangesFlagged  string    `json:"changes_flagged,omitempty"` // which commits and files of ArtifactChanges hold one
}
