package hypervisor

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// Driver is what every hypervisor can do.
type Driver interface {
	// CheckHost reports what this host offers and what is missing, each finding
	// with its fix. It changes nothing.
	CheckHost(ctx context.Context) (HostReport, error)
	// ListTemplates lists what VMs can be cloned from, broken ones included,
	// with findings that say why.
	ListTemplates(ctx context.Context) ([]Template, error)
	// ListVMs lists every VM whose owner mark begins with the prefix; with
	// foreign, also all others the hypervisor knows. A half-made VM is among them,
	// as in GetVM.
	ListVMs(ctx context.Context, ownerPrefix string, foreign bool) ([]VM, error)
	// GetVM answers fault.NotFound only when the VM is certainly gone. It answers
	// whoever owns the VM: ref.Owner is not compared, VM.Ref.Owner says whose it
	// is. A half-made VM is there, off, with its owner and a Lock that says so;
	// where nothing but parts without a mark are left it is NotFound, and DestroyVM
	// frees them all the same.
	GetVM(ctx context.Context, ref Ref) (VM, error)
	// GetStats leaves out VMs that are off or unknown.
	GetStats(ctx context.Context, vmids []uint32) (map[uint32]Stats, error)
	// CreateVM clones the template, sets resources, NIC, seed and owner mark,
	// and leaves the VM off. fault.Exists: the VMID is somebody else's, and
	// nothing was touched. A half-made VM of the same VMID and owner is
	// finished or made anew. fault.NotFound or fault.Invalid: there is no such
	// template. On failure nothing stays behind. The end of ctx is a failure, too:
	// clean up under context.WithoutCancel. progress may be called from any
	// goroutine, never after CreateVM returns.
	CreateVM(ctx context.Context, req CreateRequest, progress func(Progress)) (VM, error)
	// SetPower drives the VM to the target, and answers when it is reached. Shutdown
	// asks the guest and forces it off once grace has passed. fault.NotFound: there
	// is no such VM. fault.Precondition: the owner is another, or the VM is off and
	// to be paused, or half-made and to be started. fault.Unsupported: a target that
	// this hypervisor does not have.
	SetPower(ctx context.Context, ref Ref, target Power, grace time.Duration) (VM, error)
	// DestroyVM frees the VM, its own disks and its seed, never an attached
	// volume. A running VM is stopped hard first. Gone is success, but whatever
	// is left of it, such as a program that runs on, is ended and freed.
	DestroyVM(ctx context.Context, ref Ref) error
}

// ConsoleReader is a Driver that keeps what guests print on their console
// (capability "console").
type ConsoleReader interface {
	// Console gives the newest bytes, at most 64 KiB. It is untrusted text.
	Console(ctx context.Context, ref Ref) ([]byte, error)
}

// Ref names one VM. Owner is compared with the mark stored in the VM before
// anything is changed; calls that only read do not compare it.
type Ref struct {
	RequestID string // operation/step/attempt, for logs only
	VMID      uint32
	Node      string // empty on a single host
	Owner     string // "agentlab:<host uuid>/<sandbox id>"
}

// Power is a state, or for SetPower a target.
type Power string

// Off is hard; Shutdown is only a target and ends in Off.
const (
	PowerOff        Power = "off"
	PowerShutdown   Power = "shutdown"
	PowerOn         Power = "on"
	PowerPaused     Power = "paused"
	PowerHibernated Power = "hibernated"
)

// VM is one virtual machine as the hypervisor sees it now.
type VM struct {
	Ref           Ref // Ref.Owner is the mark as stored, "" if unreadable
	Name          string
	Power         Power
	Lock          string // who holds it, "" if free
	NIC           NIC
	Cores         uint32
	MemoryBytes   uint64
	Started       time.Time // zero when off
	HostInterface string    // the tap's name: what HostReport.InterfacePattern gives
	Start         Start     // zero when off, or where it makes no difference
}

// Way is how a VM that is on came up.
type Way string

// The ways.
const (
	WayBoot   Way = "boot"
	WayMemory Way = "memory" // from a memory template
)

// Start tells how a VM came up.
type Start struct {
	Way    Way
	Reason string // one sentence for people: why it had to boot, or what was there for it from memory; may be ""
}

// NIC is the one network card of a sandbox. The core chooses all of it.
type NIC struct {
	Bridge      string
	MAC         string // never empty
	Tap         string // HostReport.InterfacePattern's name, if it is there already
	AddressCIDR string // "10.77.0.12/16"
	Gateway     string
	DNS         []string
}

// Seed holds the cloud-init documents (NoCloud), each JSON or YAML text. They
// contain a one-time token: store them readable by the hypervisor only.
type Seed struct {
	UserData      []byte
	MetaData      []byte
	NetworkConfig []byte
}

// CreateRequest asks for one VM.
type CreateRequest struct {
	Ref           Ref
	Name          string
	Template      string // VMID in digits, or name
	Cores         uint32 // 1 or more
	MemoryBytes   uint64
	RootDiskBytes uint64 // the root disk is grown to this, never shrunk; 0 keeps the template's size
	NIC           NIC
	Seed          Seed
}

// Progress tells how far a long call is.
type Progress struct {
	Phase      string  // "clone disk", "write seed"
	Fraction   float64 // 0 to 1, negative if unknown
	BytesDone  uint64
	BytesTotal uint64
}

// Template is something VMs are cloned from.
type Template struct {
	VMID     uint32
	Name     string
	Version  string
	SSHUser  string
	Agents   []string         // agent CLIs installed in it
	Findings []plugin.Finding // no guest agent, no seed drive, …
	Memory   []MemoryTemplate // what VMs of it can start from
}

// FindingSuperseded is the ID of a Template's finding that another one, newer or
// named before it, is taken instead.
const FindingSuperseded = "superseded"

// HostReport is the answer of CheckHost.
type HostReport struct {
	Findings         []plugin.Finding
	Cores            uint32
	MemoryBytes      uint64
	MemoryFreeBytes  uint64
	DiskFreeBytes    uint64
	VMIDFirst        uint32 // range from which the core chooses
	VMIDLast         uint32
	InterfacePattern string // fmt pattern over the VMID: "tap%di0"
	CreatesInterface bool   // false: the network plugin makes the tap
}

// Stats are counters of a running VM.
type Stats struct {
	CPUFraction     float64       // of the allotted cores, 0 to 1, averaged over Window
	Window          time.Duration // 0 when there is no earlier sample
	MemoryUsedBytes uint64        // resident on the host
	NetRxBytes      uint64        // received by the guest
	NetTxBytes      uint64        // sent by the guest
}
