package pluginhost

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// Config says which plugins to run and what to tell them.
type Config struct {
	Blocks      []Block // at most one of each kind
	PluginDir   string  // where agentlab-plugin-<name> is found
	RunDir      string  // existing private folder for sockets; a short path
	StateDir    string  // plugins keep their state in <StateDir>/<kind>-<name>
	TempDir     string  // TMPDIR of plugins; "" is /tmp
	HostUUID    string
	HostVersion string
}

// Block is one plugin block of the configuration.
type Block struct {
	Kind   string
	Name   string
	Path   string   // of the binary; "" is agentlab-plugin-<name> in PluginDir
	SHA256 string   // pin of the binary in hex; "" for none
	Body   hcl.Body // of the config block; nil when there is none
	Range  hcl.Range
}

// State of a plugin.
type State string

// The states. Degraded: it runs, but says that calls may fail.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Degraded State = "degraded"
	Backoff  State = "backoff"
	Failed   State = "failed"
	Stopped  State = "stopped"
)

// Status is how one plugin stands.
type Status struct {
	Kind, Name   string
	Version      string // "" before it first came up
	State        State
	Message      string // cause, when not ready
	Path         string
	PID          int // 0 when not running
	Capabilities []string
	StartedAt    time.Time // of the present process
	Restarts     int
}

// Host runs plugins.
type Host struct {
	cfg       Config
	instances []*instance
}

// New prepares the host; nothing runs before Run.
func New(cfg Config, log hclog.Logger) *Host {
	h := &Host{cfg: cfg}
	for _, b := range cfg.Blocks {
		h.instances = append(h.instances, newInstance(&h.cfg, b, log.Named(b.Kind).Named(b.Name)))
	}
	return h
}

// Run starts all plugins at the same time and keeps them running until ctx
// ends, then stops them. It returns when the last process is gone, which takes
// at most stopTimeout.
func (h *Host) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(h.instances))
	for i, inst := range h.instances {
		wg.Go(func() { errs[i] = inst.run(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Ready waits until every plugin has come up or failed to once, and returns
// what failed. Plugins that failed for another reason than their configuration
// are still being tried.
func (h *Host) Ready(ctx context.Context) error {
	var errs []error
	for _, inst := range h.instances {
		errs = append(errs, inst.settled(ctx))
	}
	return errors.Join(errs...)
}

// List tells how each plugin stands, in the order of the configuration. It
// never waits for a plugin.
func (h *Host) List() []Status {
	var out []Status
	for _, inst := range h.instances {
		out = append(out, inst.snapshot())
	}
	return out
}

// Hypervisor is the driver of the hypervisor plugin. Like the others it is
// valid before Run and through restarts: a call waits a little for a plugin
// that is starting, and is fault.Unavailable when it does not come up. A call
// without a deadline gets one from the contract of its method.
func (h *Host) Hypervisor() hypervisor.Driver {
	return hypervisor.NewClient(h.line(plugin.Hypervisor))
}

// Network is the driver of the network plugin.
func (h *Host) Network() network.Driver { return network.NewClient(h.line(plugin.Network)) }

// Secrets is the driver of the secrets plugin.
func (h *Host) Secrets() secrets.Driver { return secrets.NewClient(h.line(plugin.Secrets)) }

// Exposure is the driver of the exposure plugin.
func (h *Host) Exposure() exposure.Driver { return exposure.NewClient(h.line(plugin.Exposure)) }

// Has reports whether a plugin of the kind is configured.
func (h *Host) Has(kind plugin.Kind) bool { return h.find(kind) != nil }

func (h *Host) find(kind plugin.Kind) *instance {
	for _, inst := range h.instances {
		if inst.block.Kind == string(kind) {
			return inst
		}
	}
	return nil
}

func (h *Host) line(kind plugin.Kind) *launch.Line {
	if inst := h.find(kind); inst != nil {
		return &launch.Line{Label: inst.label(), Target: inst.await}
	}
	return &launch.Line{Label: string(kind), Target: func(context.Context) (*launch.Process, error) {
		return nil, fault.New(fault.Unsupported, "no %s plugin is configured", kind).
			WithHint("add a block to config.hcl: plugin %q \"NAME\" {}", kind)
	}}
}
