package channel

import (
	"time"
)

// Port is the name of the virtio-serial port.
const Port = "org.agentlab.runner.0"

// TemplateLabel is the volume label of the disk that tells a guest that it is to
// become a memory template. It is an ISO 9660 volume like a seed, with no seed
// in it.
const TemplateLabel = "ALTEMPLATE"

// MinEntropy is the least that a copy gets of it, in bytes.
const MinEntropy = 64

// rehearsalEntropy is what a copy that rehearses gets of it, in bytes.
const rehearsalEntropy = 256

// Phase is what a guest is.
type Phase string

// The phases. A template becomes named by Assume and a guest that serves by Go, or
// by a reboot with a seed.
const (
	PhaseTemplate Phase = "template" // booted, without identity
	PhaseNamed    Phase = "named"    // all of its identity is in place; nothing of its user runs
	PhaseServing  Phase = "serving"
)

// State is how a guest describes itself.
type State struct {
	Phase  Phase  `json:"phase"`
	Runner string `json:"runner"` // version of agent-runner
}

// Seed holds the documents of a seed disk; hypervisor.Seed converts to it.
type Seed struct {
	UserData      []byte
	MetaData      []byte
	NetworkConfig []byte
}

// Identity is what makes a copy of a memory template a VM of its own.
type Identity struct {
	MAC     string // of its one network card
	Seed    Seed   // as on its seed disk; at most 1 MiB in all
	Entropy []byte // fresh, at least MinEntropy
	Time    time.Time
}

// Assumed tells what became of an identity.
type Assumed struct {
	HostKey string `json:"host_key"` // public ssh host key, authorized_keys form
	Duties  []Duty `json:"duties"`   // in the order in which they were done
}

// Duty is one part of an identity.
type Duty struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Exec is a program to run as root in the guest.
type Exec struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"` // "NAME=value", beside the guest's own
	Dir  string   `json:"dir,omitempty"` // "" is /
}

// stateReply is State, and what the guest's program can beside the calls that every
// one of its version knows: it passes over those that it does not know.
type stateReply struct {
	State
	Rehearses bool `json:"rehearses,omitempty"`
}

type rehearseArgs struct {
	Entropy []byte `json:"entropy"`
}

type busyArgs struct {
	Serial string `json:"serial"`
}

type busyReply struct {
	Users []string `json:"users"`
}

type execReply struct {
	Code int `json:"code"`
}
