package pluginhost

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"

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
	// Tell is told of each turn, by the goroutine that keeps the plugin running. nil:
	// nobody wants to know.
	Tell func(Turn)
}

// Block is one plugin block of the configuration.
type Block struct {
	Kind   string
	Name   string
	Path   string   // of the binary; "" is agentlab-plugin-<name> in PluginDir
	SHA256 string   // pin of the binary in hex; "" for none
	Words  []string // of the whole block: others make a Reload replace the process
	// Unconfined leaves the plugin all that the host may. Allow is the most that
	// a confined one may ask for, in words of launch.Words; nil is anything.
	Unconfined bool
	Allow      []string
	Body       hcl.Body // of the config block; nil when there is none
	Range      hcl.Range
}

func (c *Config) stateDir(b Block) string { return filepath.Join(c.StateDir, b.Kind+"-"+b.Name) }

// pathOf is where the block's binary is.
func (c *Config) pathOf(b Block) string {
	if b.Path != "" {
		return b.Path
	}
	return filepath.Join(c.PluginDir, plugin.BinaryPrefix+b.Name)
}

// Host runs plugins.
type Host struct {
	cfg       Config
	log       hclog.Logger
	reloading chan struct{} // full through one Restart or Reload

	mu sync.RWMutex
	// mu guards:
	instances []*instance
	leaving   []*instance // no more among instances, but may still run
	// spawn runs f beside the others until Run ends; nil unless Run runs.
	spawn func(f func(ctx context.Context) error)
}

// New prepares the host; nothing runs before Run.
func New(cfg Config, log hclog.Logger) *Host {
	h := &Host{cfg: cfg, log: log, reloading: make(chan struct{}, 1)}
	for _, b := range cfg.Blocks {
		h.instances = append(h.instances, h.instance(b))
	}
	return h
}

func (h *Host) instance(b Block) *instance {
	return newInstance(&h.cfg, b, h.log.Named(b.Kind).Named(b.Name))
}

// Run starts all plugins at the same time and keeps them running until ctx
// ends, then stops them. It returns when the last process is gone, which takes
// at most stopTimeout.
func (h *Host) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	h.mu.Lock()
	h.spawn = func(f func(context.Context) error) {
		wg.Go(func() {
			err := f(ctx)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	for _, i := range h.instances {
		h.keep(i, nil)
	}
	h.mu.Unlock()
	<-ctx.Done()
	h.mu.Lock()
	h.spawn = nil
	h.mu.Unlock()
	wg.Wait()
	return errors.Join(errs...)
}

// keep runs an instance until Run ends or the instance leaves. Called with mu
// held, while Run runs.
func (h *Host) keep(i *instance, up *upProcess) {
	h.spawn(func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-i.leaves:
				cancel()
			case <-ctx.Done():
			}
		}()
		defer close(i.ended)
		return i.run(ctx, up)
	})
}

func (h *Host) all() []*instance {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Clone(h.instances)
}

// Ready waits until every plugin has come up or failed to once, and returns
// what failed. Plugins that failed for another reason than their configuration
// are still being tried.
func (h *Host) Ready(ctx context.Context) error {
	var errs []error
	for _, inst := range h.all() {
		errs = append(errs, inst.settled(ctx))
	}
	return errors.Join(errs...)
}

// List tells how each plugin stands, in the order of the configuration. It
// never waits for a plugin.
func (h *Host) List() []Status {
	var out []Status
	for _, inst := range h.all() {
		out = append(out, inst.snapshot())
	}
	return out
}

// Hypervisor is the driver of the hypervisor plugin. Like the others it is
// valid before Run and through restarts and reloads: a call waits a little for
// a plugin that is starting, and is fault.Unavailable at once when it is down.
// Deadlines and what is called again come from the contract: see launch.Line.
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
	for _, inst := range h.all() {
		if inst.kind == string(kind) {
			return inst
		}
	}
	return nil
}

// line looks for the plugin at each call: a reload may have brought another.
func (h *Host) line(kind plugin.Kind) *launch.Line {
	return &launch.Line{Begin: func(ctx context.Context, method string, n int) (*launch.Attempt, error) {
		if inst := h.find(kind); inst != nil {
			return inst.begin(ctx, method, n)
		}
		return nil, fault.New(fault.Unsupported, "no %s plugin is configured", kind).
			WithHint("add a block to config.hcl: plugin %q \"NAME\" {}", kind)
	}}
}
