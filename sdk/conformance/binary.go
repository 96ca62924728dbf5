package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

const stopTimeout = 20 * time.Second

// Binary is a finished plugin. It is started anew for each check, so nothing
// can hide in its memory.
type Binary struct {
	Path     string
	Kind     plugin.Kind
	Config   json.RawMessage // what is absent gets its default from the schema
	StateDir string          // existing folder, kept between starts
	Log      hclog.Logger    // may be nil

	search string // PATH of the process, where it is not ours
}

// Hypervisor opens the binary as a hypervisor.
func (b Binary) Hypervisor() Open[hypervisor.Driver] {
	b.Kind = plugin.Hypervisor
	return open(b, hypervisorBehind)
}

// Network opens the binary as a network.
func (b Binary) Network() Open[network.Driver] {
	b.Kind = plugin.Network
	return open(b, func(p *launch.Process) network.Driver { return network.NewClient(p.Conn()) })
}

// Secrets opens the binary as a keeper of secrets.
func (b Binary) Secrets() Open[secrets.Driver] {
	b.Kind = plugin.Secrets
	return open(b, func(p *launch.Process) secrets.Driver { return secrets.NewClient(p.Conn()) })
}

// Exposure opens the binary as an exposure.
func (b Binary) Exposure() Open[exposure.Driver] {
	b.Kind = plugin.Exposure
	return open(b, func(p *launch.Process) exposure.Driver { return exposure.NewClient(p.Conn()) })
}

func hypervisorBehind(p *launch.Process) hypervisor.Driver {
	return &behind{hypervisor.NewClient(p.Conn()), p}
}

func open[D any](b Binary, client func(*launch.Process) D) Open[D] {
	return func(ctx context.Context) (driver D, done func(), err error) {
		p, _, cleanUp, err := b.start(ctx)
		if err != nil {
			return driver, nil, err
		}
		return client(p), cleanUp, nil
	}
}

// environment is what a host gives a plugin.
func (b Binary) environment() []string {
	search := b.search
	if search == "" {
		search = os.Getenv("PATH")
	}
	return []string{"PATH=" + search, "LANG=C"}
}

func (b Binary) host() plugin.HostContext {
	return plugin.HostContext{Kind: b.Kind, Instance: "conformance", HostUUID: hostUUID, StateDir: b.StateDir}
}

// start starts and configures the plugin, and gives its capabilities.
func (b Binary) start(ctx context.Context) (p *launch.Process, capabilities []string, done func(), err error) {
	dir, err := runDir()
	if err != nil {
		return nil, nil, nil, err
	}
	p, err = b.launch(ctx, dir)
	if err != nil {
		return nil, nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	done = func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if ctx.Value(toBeKilled{}) != nil {
			cancel()
		}
		_ = p.Stop(stop) // it is ended either way
		_ = os.RemoveAll(dir)
	}
	if capabilities, err = b.configure(ctx, p.Conn()); err != nil {
		done()
		return nil, nil, nil, err
	}
	return p, capabilities, done, nil
}

// content tells one build of a binary from the next, more cheaply than its sum.
type content struct {
	path      string
	size, mod int64
}

// asked is what each binary asks for, by its content: to learn it takes a process
// and a look at every byte, which would be half of what a check costs.
var asked sync.Map

// grant is what the plugin may do, as a host grants it.
func (b Binary) grant(ctx context.Context, spec launch.Spec) (launch.Grant, error) {
	info, err := os.Stat(b.Path)
	if err != nil {
		return launch.Grant{}, fault.New(fault.NotFound, "there is no plugin: %w", err)
	}
	key := content{b.Path, info.Size(), info.ModTime().UnixNano()}
	if known, ok := asked.Load(key); ok {
		return launch.GrantOf(known.(plugin.Confinement), b.StateDir)
	}
	spec, asks, err := launch.Confine(ctx, spec, b.StateDir, "")
	if err == nil {
		asked.Store(key, asks)
	}
	return spec.Grant, err
}

// telling adds to a failure for want of a right what rights the process had.
func (b Binary) telling(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := run(ctx)
		if err == nil || errors.Is(err, ErrSkipped) || !lacksRight(err) {
			return err
		}
		g, unknown := b.grant(ctx, launch.Spec{})
		if unknown != nil || !g.Confined || os.Geteuid() != 0 {
			return err
		}
		has := "no capabilities"
		if len(g.Capabilities) > 0 {
			has = strings.Join(g.Capabilities, ", ")
		}
		return fmt.Errorf("%w (it ran as uid %d, with %s, as its Confinement asks)", err, g.UID, has)
	}
}

func lacksRight(err error) bool {
	text := strings.ToLower(err.Error())
	return errors.Is(err, fault.Denied) || strings.Contains(text, unix.EACCES.Error()) || strings.Contains(text, unix.EPERM.Error())
}

// launch starts the plugin with the privileges that it asks for, as a host does.
func (b Binary) launch(ctx context.Context, runDir string) (*launch.Process, error) {
	spec := launch.Spec{
		Path: b.Path, Kind: string(b.Kind), Name: "conformance", RunDir: runDir, Log: b.Log, Env: b.environment(),
	}
	var err error
	if spec.Grant, err = b.grant(ctx, spec); err != nil {
		return nil, err
	}
	if b.StateDir != "" {
		if err := spec.Grant.TakeDir(b.StateDir); err != nil {
			return nil, err
		}
	}
	return launch.Start(ctx, spec)
}

// runDir makes a folder for a socket, whose path must be short.
func runDir() (string, error) {
	dir, err := os.MkdirTemp("", "conf")
	if err == nil && launch.CheckRunDir(dir) != nil {
		if err = os.Remove(dir); err == nil {
			dir, err = os.MkdirTemp("/tmp", "conf")
		}
	}
	if err != nil {
		return "", fmt.Errorf("make run directory: %w", err)
	}
	return dir, nil
}

// configure configures the plugin behind a connection.
func (b Binary) configure(ctx context.Context, conn grpc.ClientConnInterface) ([]string, error) {
	base := plugin.NewClient(conn)
	cfg, err := b.whole(ctx, base)
	if err != nil {
		return nil, err
	}
	capabilities, diags, err := base.Configure(ctx, b.host(), cfg)
	if err != nil {
		return nil, fmt.Errorf("configure: %w", err)
	}
	return capabilities, refusal("configure", diags)
}

// refusal is what diagnostics say against a configuration.
func refusal(what string, diags []plugin.Diagnostic) (err error) {
	for _, d := range diags {
		if d.Severity != plugin.SeverityWarning {
			err = errors.Join(err, saw("%s says: %s %s", what, d.Summary, d.Detail).want("no error, with the configuration that the test was given"))
		}
	}
	return err
}

// hostUUID is the host's in a conformance run.
const hostUUID = "00000000-0000-4000-8000-c0f0c0f0c0f0"
