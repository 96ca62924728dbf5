package pluginhost

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
		text := d.Summary
		if d.Detail != "" {
			text += "; " + d.Detail
		}
		if d.Subject != nil {
			text = fmt.Sprintf("%s:%d: %s", d.Subject.Filename, d.Subject.Start.Line, text)
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes it fault.Invalid.
func (e *ConfigError) Unwrap() error { return fault.Invalid }

// upProcess is a process that is configured.
type upProcess struct {
	process      *launch.Process
	base         plugin.Base
	info         plugin.Info
	capabilities []string
}

// bringUp starts the plugin and configures it. On an error no process is left.
func bringUp(ctx context.Context, i *instance) (*upProcess, error) {
	dir := filepath.Join(i.cfg.StateDir, i.block.Kind+"-"+i.block.Name)
	if err := makeStateDir(dir); err != nil {
		return nil, err
	}
	up, err := begin(ctx, i)
	if err != nil {
		return nil, err
	}
	if err := up.configure(ctx, i, dir); err != nil {
		up.abandon(ctx, i)
		return nil, err
	}
	return up, nil
}

func (up *upProcess) abandon(ctx context.Context, i *instance) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if err := up.process.Stop(ctx); err != nil {
		i.log.Error("plugin stays though unused", "plugin", i.label(), "err", err)
	}
}

// begin starts the process.
func begin(ctx context.Context, i *instance) (*upProcess, error) {
	tmp := i.cfg.TempDir
	if tmp == "" {
		tmp = "/tmp"
	}
	process, err := launch.Start(ctx, launch.Spec{
		Path: i.path, Kind: i.block.Kind, Name: i.block.Name, SHA256: i.block.SHA256, RunDir: i.cfg.RunDir,
		Env: []string{"PATH=" + pluginPath, "LANG=C", "TMPDIR=" + tmp}, Log: i.log,
	})
	if err != nil {
		return nil, err
	}
	return &upProcess{process: process, base: plugin.NewClient(process.Conn())}, nil
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
// it decodes.
func (up *upProcess) accept(ctx context.Context, i *instance) (*decoded, error) {
	schema, err := up.ask(ctx, i)
	if err != nil {
		return nil, err
	}
	i.learn(up.info, *schema)
	cfg := decodeBlock(i.block, schema)
	if !cfg.diags.HasErrors() {
		if err := up.validate(ctx, cfg); err != nil {
			return nil, fmt.Errorf("validate configuration of plugin %s: %w", i.label(), cfg.redact(err))
		}
	}
	return cfg, nil
}

func (up *upProcess) configure(ctx context.Context, i *instance, dir string) error {
	cfg, err := up.accept(ctx, i)
	if err != nil {
		return err
	}
	if !cfg.diags.HasErrors() {
		ctx, cancel := context.WithTimeout(ctx, configureTimeout)
		defer cancel()
		host := plugin.HostContext{
			Kind: plugin.Kind(i.block.Kind), Instance: i.block.Name, HostUUID: i.cfg.HostUUID, StateDir: dir,
		}
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
		i.log.Warn("plugin configuration", "plugin", i.label(), "file", d.Subject.Filename, "line", d.Subject.Start.Line, "text", d.Summary)
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
	if !slices.Contains(info.Kinds, plugin.Kind(i.block.Kind)) {
		return nil, &ConfigError{Plugin: i.label(), Diagnostics: hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  fmt.Sprintf("%s does not serve %s", i.path, plugin.Kind(i.block.Kind).ServiceName()),
			Detail:   "it serves " + strings.Join(info.Services, ", "),
			Subject:  &i.block.Range,
		}}}
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
