package pluginhost

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// pluginPath is the PATH of every plugin: that of a system service.
const pluginPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const (
	askTimeout       = 5 * time.Second  // for GetInfo, GetSchema, ValidateConfig, SetLogLevel
	configureTimeout = time.Minute      // a plugin may probe the host
	abortTimeout     = 10 * time.Second // to end a process that was not taken
)

// ConfigError tells what is wrong with a plugin's configuration.
type ConfigError struct {
	Plugin      string // "hypervisor qemu"
	Diagnostics hcl.Diagnostics
}

// Error gives one line for each diagnostic, with file and line.
func (e *ConfigError) Error() string {
	lines := []string{"configuration of plugin " + e.Plugin + " is wrong"}
	for _, d := range e.Diagnostics {
		text := plainText(d)
		if d.Subject != nil {
			text = fmt.Sprintf("%s:%d: %s", d.Subject.Filename, d.Subject.Start.Line, text)
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n")
}

func plainText(d *hcl.Diagnostic) string {
	if d.Detail == "" {
		return d.Summary
	}
	return d.Summary + "; " + d.Detail
}

// Unwrap makes it fault.Invalid.
func (e *ConfigError) Unwrap() error { return fault.Invalid }

// starter makes processes of a plugin; tests have one of their own.
type starter interface {
	// prepare starts a process and asks it about the block; it is not
	// configured. On an error no process is left; one that answered is given
	// for what it says of itself.
	prepare(ctx context.Context, i *instance, b Block) (*upProcess, error)
	configure(ctx context.Context, i *instance, up *upProcess) error
}

// process is what supervision needs of a launch.Process.
type process interface {
	PID() int
	Done() <-chan struct{}
	Exit() launch.Exit
	Stop(ctx context.Context) error
}

// upProcess is a process of a plugin.
type upProcess struct {
	process      process
	line         *launch.Process // the same, for calls
	grant        launch.Grant
	base         plugin.Base
	health       func(context.Context) (plugin.Health, error)
	block        Block
	binary       os.FileInfo // of the file that was started, by its path
	decoded      *decoded    // its block, once it was asked
	info         plugin.Info
	schema       plugin.Schema
	capabilities []string
	since        time.Time // when it began to serve
	traffic      traffic
	died         bool // while it came up

	reported chan struct{} // closed once the rest is set
	crashID  string
	ending   string // how it ended
}

func (up *upProcess) gone() bool {
	select {
	case <-up.process.Done():
		return true
	default:
		return false
	}
}

// redact removes values of sensitive attributes.
func (up *upProcess) redact(s string) string {
	if up.decoded == nil {
		return s
	}
	return up.decoded.redactor.String(s)
}

// end ends the process in good order: see launch.Process.Stop.
func (up *upProcess) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return up.process.Stop(ctx)
}

// abandon ends a process that was not taken.
func (up *upProcess) abandon(ctx context.Context, i *instance) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if err := up.process.Stop(ctx); err != nil {
		i.log.Error("plugin stays though unused", "plugin", i.label(), "err", err)
	}
}

// processes is the starter of real processes.
type processes struct{}

func (processes) prepare(ctx context.Context, i *instance, b Block) (*upProcess, error) {
	up, err := begin(ctx, i, b, confine)
	if err != nil {
		return nil, err
	}
	if err := up.accept(ctx, i); err != nil {
		up.died = up.endedSoon(err)
		up.abandon(ctx, i)
		return up, err
	}
	return up, nil
}

// begin starts the process with the rights that grant adds.
func begin(ctx context.Context, i *instance, b Block, grant granter) (*upProcess, error) {
	tmp := i.cfg.TempDir
	if tmp == "" {
		tmp = "/tmp"
	}
	path := i.cfg.pathOf(b)
	binary := statBinary(path)
	spec, err := grant(ctx, i.cfg, b, launch.Spec{
		Path: path, Kind: b.Kind, Name: b.Name, SHA256: b.SHA256, RunDir: i.cfg.RunDir,
		Env: []string{"PATH=" + pluginPath, "LANG=C", "TMPDIR=" + tmp}, Log: i.log,
	})
	if err != nil {
		return nil, err
	}
	process, err := launch.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	base := plugin.NewClient(process.Conn())
	return &upProcess{
		process: process, line: process, grant: spec.Grant, base: base, health: base.Health, block: b, binary: binary, reported: make(chan struct{}),
	}, nil
}

// statBinary is nil for a file that cannot be looked at; launch says what is
// wrong with it.
func statBinary(path string) os.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

// makeStateDir makes a folder that others may pass through but not list: what
// a plugin starts may run as another user.
func makeStateDir(dir string) error {
	err := os.MkdirAll(dir, 0o711)
	if err == nil {
		err = os.Chmod(dir, 0o711) // whatever the umask
	}
	if err != nil {
		return fault.New(fault.Unavailable, "make state folder: %w", err)
	}
	return nil
}

// accept asks the plugin for its schema and what it thinks of its block, which
// it decodes. What is wrong with the block is in up.decoded.
func (up *upProcess) accept(ctx context.Context, i *instance) error {
	schema, err := up.ask(ctx, i)
	if err != nil {
		return err
	}
	cfg := decodeBlock(up.block, schema)
	up.schema, up.decoded = *schema, cfg
	up.line.Hide(cfg.redactor)
	if !cfg.diags.HasErrors() {
		if err := up.validate(ctx, cfg); err != nil {
			return fmt.Errorf("validate configuration of plugin %s: %w", i.label(), cfg.redact(err))
		}
	}
	return nil
}

func (processes) configure(ctx context.Context, i *instance, up *upProcess) error {
	dir := i.cfg.stateDir(up.block)
	if err := makeStateDir(dir); err != nil {
		return err
	}
	if err := up.grant.TakeDir(dir); err != nil {
		return err
	}
	cfg := up.decoded
	if !cfg.diags.HasErrors() {
		ctx, cancel := context.WithTimeout(ctx, configureTimeout)
		defer cancel()
		host := plugin.HostContext{Kind: plugin.Kind(i.kind), Instance: i.name, HostUUID: i.cfg.HostUUID, StateDir: dir}
		capabilities, remarks, err := up.base.Configure(ctx, host, cfg.json)
		if err != nil {
			return fmt.Errorf("configure plugin %s: %w", i.label(), cfg.redact(err))
		}
		up.capabilities = capabilities
		cfg.remark(remarks)
	}
	if cfg.diags.HasErrors() {
		return &ConfigError{Plugin: i.label(), Diagnostics: cfg.diags}
	}
	for _, d := range cfg.diags {
		i.log.Warn("plugin configuration", "plugin", i.label(), "file", d.Subject.Filename, "line", d.Subject.Start.Line, "text", plainText(d))
	}
	return nil
}

// ask gets the facts that come before configuration.
func (up *upProcess) ask(ctx context.Context, i *instance) (*plugin.Schema, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := up.base.Info(ctx, i.cfg.HostVersion)
	if err != nil {
		return nil, fmt.Errorf("ask plugin %s what it is: %w", i.label(), err)
	}
	up.info = info
	if !slices.Contains(info.Kinds, plugin.Kind(i.kind)) {
		wrong := hcl.Diagnostic{Severity: hcl.DiagError, Subject: &up.block.Range}
		wrong.Summary = i.cfg.pathOf(up.block) + " " + plugin.Kind(i.kind).NotOf(info.Kinds)
		if len(info.Kinds) == 0 { // of another version
			wrong.Summary += ": it does not serve " + plugin.Kind(i.kind).ServiceName()
			wrong.Detail = "it serves " + strings.Join(info.Services, ", ")
		}
		return nil, &ConfigError{Plugin: i.label(), Diagnostics: hcl.Diagnostics{&wrong}}
	}
	// A plugin without levels is no reason to do without it.
	if err := up.base.SetLogLevel(ctx, i.log.GetLevel().String()); err != nil {
		i.log.Debug("plugin keeps its log level", "plugin", i.label(), "err", err)
	}
	schema, err := up.base.Schema(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask plugin %s for its schema: %w", i.label(), err)
	}
	return schema, nil
}

func (up *upProcess) validate(ctx context.Context, cfg *decoded) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	remarks, err := up.base.Validate(ctx, cfg.json)
	cfg.remark(remarks)
	return err
}
