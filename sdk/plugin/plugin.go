package plugin

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// Handshake of go-plugin. ProtocolVersion covers the base service; a kind is
// versioned by its proto package.
const (
	ProtocolVersion = 1
	CookieKey       = "AGENTLAB_PLUGIN"
	CookieValue     = "agentlab"
)

// MaxMessage is the size in bytes of the largest message either side takes.
const MaxMessage = 64 << 20

// BinaryPrefix begins the file name of every plugin binary.
const BinaryPrefix = "agentlab-plugin-"

// Plugin describes a plugin to Serve.
type Plugin struct {
	Name        string // "qemu", without BinaryPrefix
	Version     string // semver
	Description string // what it is, without a period: it stands behind a colon
	Kinds       []Kind // one, or several of which each process serves one
	Schema      *Schema
	Tools       []Tool
	Confinement Confinement
	// Exclusive: two processes of one block must never be configured at the same
	// time. Replacing one then has a gap, in which calls wait.
	Exclusive bool
	// Validate checks what Schema cannot express. Optional. It must not touch
	// the system, and gets what Configure would get.
	Validate func(ctx context.Context, cfg json.RawMessage) []Diagnostic
	// Configure makes the instance, once per process. cfg is an object by
	// Schema with defaults filled in; read it with Decode. It may return
	// Diagnostics as its error to point at attributes.
	Configure func(ctx context.Context, host HostContext, cfg json.RawMessage, log hclog.Logger) (Instance, error)
}

// HostContext is what the host tells the plugin about itself.
type HostContext struct {
	Kind     Kind   // the one of Plugin.Kinds to serve
	Instance string // second label of the plugin's block
	HostUUID string // begins owner marks: "agentlab:<HostUUID>/…"
	StateDir string // folder for this instance alone; exists
}

// Instance is a configured plugin.
type Instance struct {
	Service Service // from the kind's package: hypervisor.Service(driver)
	// Health tells whether calls would work now. Optional: nil is always
	// ready. It is polled and should answer within a second; when ctx ends,
	// after a second and a half, the host is told Degraded in its place.
	Health func(ctx context.Context) Health
	// Close releases what must not outlive the process. Optional. It gets a
	// few seconds and may never be called: a process can be killed.
	Close func(ctx context.Context) error
}

// HealthState says whether calls would work.
type HealthState string

// Degraded: some calls will fail. Unavailable: a dependency is down, the
// process should be kept.
const (
	Ready       HealthState = "ready"
	Degraded    HealthState = "degraded"
	Unavailable HealthState = "unavailable"
)

// Health is how an instance is doing.
type Health struct {
	State      HealthState
	Message    string
	Attributes map[string]string // tool versions, free space
}

// Tool is an external program that the plugin runs. The host shows where it is
// found and its version.
type Tool struct {
	Name        string   // looked up in PATH
	VersionArgs []string // "--version" when nil
}

// NoUser as the user of a Confinement is one that owns nothing but the plugin's
// state folder, and that no account has.
const NoUser = "none"

// Confinement is what the plugin's process needs of the system. It gets no more,
// nor can what it runs: not by setuid programs either.
type Confinement struct {
	User            string   // NoUser, an account, or "" for the host's own
	Capabilities    []string // "CAP_NET_ADMIN"
	Devices         []string // "/dev/net/tun", which some hosts let only root open
	Network         bool     // false: an empty network namespace would do
	StartsWorkloads bool     // true: nothing that children would inherit
}

// Severity of a Diagnostic.
type Severity string

// An error refuses the configuration, a warning does not.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Diagnostic is one remark about a configuration. It must not quote the value
// of a sensitive attribute.
type Diagnostic struct {
	Severity Severity // "" is SeverityError
	Summary  string
	Detail   string // what to do about it
	Path     Path   // where; empty is the whole configuration
}

// Diagnostics is a list of remarks as an error.
type Diagnostics []Diagnostic

// Error joins the summaries.
func (d Diagnostics) Error() string {
	var lines []string
	for _, one := range d {
		lines = append(lines, one.Summary)
	}
	return strings.Join(lines, "; ")
}

// Path leads to a value in a configuration: Path{Attr("nodes"), Index(0),
// Attr("name")}.
type Path []Step

// Step is one step of a Path: Attr, Key or Index.
type Step interface{ step() }

// Attr names an attribute or block, Key an element of a map, Index one of a
// list.
type (
	Attr  string
	Key   string
	Index int64
)

func (Attr) step()  {}
func (Key) step()   {}
func (Index) step() {}
