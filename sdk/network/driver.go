package network

import (
	"context"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// Driver is what every network plugin can do.
type Driver interface {
	// CheckHost reports bridge, forwarding, base rules and tools, each finding
	// with its fix. It changes nothing.
	CheckHost(ctx context.Context, host Host) ([]plugin.Finding, error)
	// ApplyHost makes the kernel side so. It is idempotent and keeps what is
	// already attached. What must survive a reboot comes back as files that the
	// caller shows and writes.
	ApplyHost(ctx context.Context, host Host) (ApplyReport, error)
	// Attach puts the policy in force and, when asked, makes a persistent tap.
	// A generation older than the one in force is fault.Conflict.
	Attach(ctx context.Context, req AttachRequest) (Attachment, error)
	// Detach removes rules and the tap that Attach made. Gone is success. What is
	// not attached is shut in: a VM that still runs reaches nothing any more.
	Detach(ctx context.Context, sandboxID string) error
	// ListAttachments reads back from the kernel; "" lists all.
	ListAttachments(ctx context.Context, sandboxID string) ([]Attachment, error)
}

// Mode is a sandbox's egress policy.
type Mode string

// Off reaches only the guest API. NAT reaches the Internet but no private
// range. Allowlist reaches only what Allow lists.
const (
	ModeOff       Mode = "off"
	ModeNAT       Mode = "nat"
	ModeAllowlist Mode = "allowlist"
)

// Allow opens one destination. With NAT it adds an exception for a private
// range; with Allowlist it is all there is.
type Allow struct {
	CIDR      string
	Protocol  string // tcp, udp, icmp; "" is any
	FirstPort uint16 // 0: all ports
	LastPort  uint16
}

// Host is the wish for this host's side of the agent network.
type Host struct {
	Bridge        string   // "vmbr1"
	Subnet        string   // "10.77.0.0/16"
	Address       string   // the host's own in it, "10.77.0.1"
	GuestTCPPorts []uint16 // ports on Address that sandboxes may reach
}

// ApplyReport says what ApplyHost changed, for people.
type ApplyReport struct {
	Changes  []string
	Files    []ManagedFile
	Findings []plugin.Finding
}

// ManagedFile is to be written by the caller, who may and the plugin may not.
type ManagedFile struct {
	Path       string
	Content    []byte
	Mode       uint32   // permission bits
	AfterWrite []string // command lines, "systemctl daemon-reload"
}

// AttachRequest is the whole desired policy of one sandbox.
type AttachRequest struct {
	RequestID       string // for logs only
	SandboxID       string
	Generation      uint64
	Bridge          string
	Interface       string // known before it exists
	CreateInterface bool   // make a persistent tap of that name
	MAC             string
	Address         string // IPv4, without prefix length
	Mode            Mode
	Allow           []Allow
}

// Attachment is what is in force, read back.
type Attachment struct {
	InForce       AttachRequest
	Drifted       bool
	Drift         string // what differs, for people
	DeniedPackets uint64
	// InterfaceMade, in Attach's answer only, tells that the interface was not
	// there and was made. A VM that runs stays on the one that is gone, until it
	// is stopped and started.
	InterfaceMade bool
}
