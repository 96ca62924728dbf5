package guest

import (
	"encoding/json"
	"time"
)

// The words of the guest API, as far as a simulated guest needs them.
const (
	fetchPath  = "/v1/bootstrap/fetch"
	repoPath   = "/v1/repo"
	reportPath = "/v1/runner/report"
	logPath    = "/v1/runner/log"
	uploadPath = "/upload"

	bootstrapFile = "/etc/agentlab/bootstrap.json"

	heartbeat = "heartbeat"
	stage     = "stage"
	finished  = "finished"
)

type bootstrap struct {
	Token      string `json:"token"`
	Controller string `json:"controller"`
	VMID       uint32 `json:"vmid"`
	Sandbox    string `json:"sandbox"`
}

type fetchRequest struct {
	Token      string `json:"token,omitempty"`
	Credential string `json:"credential,omitempty"`
	HostKey    string `json:"host_key"`
	BootID     string `json:"boot_id"`
	Runner     string `json:"runner"`
}

type payload struct {
	Sandbox string          `json:"sandbox"`
	Secrets json.RawMessage `json:"secrets,omitempty"`
	Job     *job            `json:"job,omitempty"`
}

type job struct {
	ID      string        `json:"id"`
	Task    string        `json:"task"`
	RepoURL string        `json:"repo_url,omitempty"`
	TTL     time.Duration `json:"ttl"`
}

type report struct {
	Job      string `json:"job,omitempty"`
	Kind     string `json:"kind"`
	Stage    string `json:"stage,omitempty"`
	Status   string `json:"status,omitempty"`
	ExitCode int    `json:"exit_code,omitempty"`
	Message  string `json:"message,omitempty"`
	Uploaded bool   `json:"uploaded,omitempty"`
}

type reportReply struct {
	Cancel bool `json:"cancel"`
	Fetch  bool `json:"fetch,omitempty"`
}

type logReply struct {
	Offset int64 `json:"offset"`
}

type jobResult struct {
	Job             string    `json:"job"`
	Status          string    `json:"status"`
	ExitCode        int       `json:"exit_code"`
	Message         string    `json:"message,omitempty"`
	StartedAt       time.Time `json:"started_at"`
	DurationSeconds float64   `json:"duration_seconds"`
}
