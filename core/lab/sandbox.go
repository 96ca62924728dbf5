package lab

import (
	"fmt"
	"net/netip"
	"time"
)

// SandboxState is the state shown to people.
type SandboxState string

// Ready means that the guest said hello and nothing runs in it; Running that a
// job does.
const (
	SandboxRequested    SandboxState = "REQUESTED"
	SandboxProvisioning SandboxState = "PROVISIONING"
	SandboxBooting      SandboxState = "BOOTING"
	SandboxReady        SandboxState = "READY"
	SandboxRunning      SandboxState = "RUNNING"
	SandboxSuspended    SandboxState = "SUSPENDED"
	SandboxStopped      SandboxState = "STOPPED"
	SandboxFailed       SandboxState = "FAILED"
	SandboxDestroyed    SandboxState = "DESTROYED"
)

// Sandbox is one disposable machine as users see it. VMID, Address, MAC and
// Interface are chosen and committed before any plugin is called; a zero VMID
// means that they are not chosen yet.
type Sandbox struct {
	ID         string // opaque, never reused: "sbx_…"
	Name       string // unique among sandboxes that are not destroyed
	VMID       uint32
	Address    netip.Addr
	MAC        string
	Interface  string // the host's end of its network card
	Owner      string // owner mark, see OwnerMark
	State      SandboxState
	Reason     string // why FAILED or STOPPED, or DESTROYED by us, for people
	Spec       Spec
	Profile    string
	JobID      string // its newest job, "" for none
	HostKey    string // ed25519 public key that the guest reported, authorized_keys form
	Generation uint64 // of its network policy
	Keep       bool   // overrides the profile's on_job_end with keep
	CreatedAt  time.Time
	ReadyAt    time.Time // zero until the guest's first hello
	ExpiresAt  time.Time // zero: no lease
	EndedAt    time.Time // zero until DESTROYED
}

// Spec is what a profile resolved to when the sandbox was asked for; later
// edits of the profile do not reach it.
type Spec struct {
	Template     string   `json:"template"` // VMID in digits, or name
	Cores        uint32   `json:"cores"`
	MemoryMB     uint64   `json:"memory_mb"`
	DiskGB       uint64   `json:"disk_gb"`      // 0 keeps the template's size
	NetworkMode  string   `json:"network_mode"` // off, nat, allowlist
	NetworkAllow []string `json:"network_allow,omitempty"`
	SSHUser      string   `json:"ssh_user"`
	SSHKey       string   `json:"ssh_key,omitempty"` // operator's public key
	Bundle       string   `json:"secrets_bundle,omitempty"`

	AgentCommand string   `json:"agent_command,omitempty"`
	AgentMode    string   `json:"agent_mode,omitempty"`    // default, dangerous
	InnerSandbox string   `json:"inner_sandbox,omitempty"` // none, bubblewrap
	InnerArgs    []string `json:"inner_sandbox_args,omitempty"`
	OnJobEnd     string   `json:"on_job_end"` // destroy, stop, keep
	RepoPath     string   `json:"repo_path,omitempty"`

	ArtifactsFor time.Duration `json:"artifacts_for,omitempty"` // how long they are kept after their job's end; 0 for ever

	TTL              time.Duration `json:"ttl"` // of a job, and of a lease without one
	ProvisionTimeout time.Duration `json:"provision_timeout"`
}

var sandboxTransitions = map[SandboxState][]SandboxState{
	SandboxRequested:    {SandboxProvisioning, SandboxFailed, SandboxDestroyed},
	SandboxProvisioning: {SandboxBooting, SandboxFailed, SandboxDestroyed},
	SandboxBooting:      {SandboxReady, SandboxStopped, SandboxFailed, SandboxDestroyed},
	SandboxReady:        {SandboxRunning, SandboxSuspended, SandboxStopped, SandboxFailed, SandboxDestroyed},
	SandboxRunning:      {SandboxReady, SandboxSuspended, SandboxStopped, SandboxFailed, SandboxDestroyed},
	SandboxSuspended:    {SandboxReady, SandboxRunning, SandboxStopped, SandboxFailed, SandboxDestroyed},
	SandboxStopped:      {SandboxBooting, SandboxFailed, SandboxDestroyed},
	SandboxFailed:       {SandboxDestroyed},
	SandboxDestroyed:    {},
}

// Live reports whether the sandbox may still hold resources.
func (s SandboxState) Live() bool { return s != SandboxDestroyed }

// Starting reports whether a sandbox in this state is on its way to READY.
func (s SandboxState) Starting() bool {
	return s == SandboxRequested || s == SandboxProvisioning || s == SandboxBooting
}

// WaitHint tells people how to wait for a sandbox that is Starting.
func WaitHint(name string) string {
	return fmt.Sprintf("it is still starting: agentlab logs -f %[1]s follows that, agentlab sandbox show %[1]s tells its step; try again once it is READY", name)
}
