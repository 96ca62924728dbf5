package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sync/errgroup"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/control"
	"github.com/agentlab/agentlab/core/guest"
	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/core/scheduler"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/version"
)

// parts are what the daemon is made of.
type parts struct {
	cfg     *config.Config // as it started; settings has what is in force
	reload  *reloader
	dev     bool
	log     hclog.Logger
	store   *state.Store
	plugins *pluginhost.Host
	sched   *scheduler.Scheduler
	guest   *guest.Server
	control *control.Server
	notify  *notifier
}

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, o options) error {
	hangups, stop := catchHangups()
	defer stop()
	cfg, diags := config.Load(o.config)
	if err := diags.Err(); err != nil {
		return wrongConfig{err}
	}
	dirs := layout{cfg, o.dev.on}
	if err := dirs.make(); err != nil {
		return err
	}
	unlock, err := dirs.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := dirs.clear(); err != nil {
		return err
	}
	log, closeLog, err := openLog(cfg)
	if err != nil {
		return err
	}
	defer closeLog()
	for _, w := range diags.Warnings() {
		log.Warn("configuration", "err", w)
	}
	for _, w := range mistakes(cfg) {
		log.Warn("configuration", "err", w)
	}
	p := &parts{cfg: cfg, reload: newReloader(cfg, hangups, log), dev: o.dev.on, log: log}
	if err := p.build(ctx, dirs); err != nil {
		return err
	}
	defer p.close()
	return p.run(ctx, dirs)
}

// openLog logs to standard error, and to the configured file when there is one.
func openLog(cfg *config.Config) (hclog.Logger, func(), error) {
	var out io.Writer = os.Stderr
	closeLog := func() {}
	if cfg.LogFile != "" {
		if err := os.MkdirAll(filepath.Dir(cfg.LogFile), 0o755); err != nil {
			return nil, nil, fault.New(fault.Denied, "create the log's directory: %w", err)
		}
		f, err := os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fault.New(fault.Denied, "open the log: %w", err)
		}
		out = io.MultiWriter(os.Stderr, f)
		closeLog = func() { _ = f.Close() }
	}
	return hclog.New(&hclog.LoggerOptions{Name: "agentlabd", Level: hclog.Info, Output: out}), closeLog, nil
}

func (p *parts) build(ctx context.Context, dirs layout) error {
	store, err := state.Open(ctx, dirs.database())
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	p.store = store
	uuid, err := store.HostUUID(ctx)
	if err != nil {
		return fmt.Errorf("read the host's identity: %w", err)
	}
	p.plugins = pluginhost.New(pluginhost.Config{
		Blocks: blocks(p.cfg), PluginDir: p.cfg.PluginDir, RunDir: dirs.pluginRun(), StateDir: dirs.pluginState(),
		HostUUID: uuid, HostVersion: version.String(), Tell: func(t pluginhost.Turn) { p.recordTurn(ctx, t) },
	}, p.log.Named("plugin"))
	p.notify = newNotifier(p.plugins.List, p.log)
	host := p.cfg.GuestListen
	p.sched = scheduler.New(scheduler.Config{
		Store: store, Hypervisor: p.plugins.Hypervisor(), Network: p.plugins.Network(),
		HostUUID: uuid, Bridge: p.cfg.AgentBridge, Subnet: p.cfg.AgentSubnet, HostAddress: host.Addr(),
		HostNetwork: hostNetwork(p.cfg), GuestURL: "http://" + host.String(), CleanRepo: dirs.cleanRepo, Log: p.log,
		ArtifactJobs: dirs.artifactJobs, CleanArtifacts: dirs.cleanArtifacts,
		Beat: p.notify.beat, BeatWithin: p.notify.within(),
	})
	gc := guest.Config{
		Store: store, ArtifactsDir: dirs.artifacts(), ReposDir: dirs.repos(), Log: p.log,
		Limits: guestLimits(p.cfg), Secrets: p.plugins.Secrets(),
	}
	cc := control.Config{
		Store: store, Scheduler: p.sched, Profiles: profiles{&p.reload.settings}, Plugins: p.listPlugins, CheckPlugins: p.checkPlugins, Plugin: p.pluginInfo,
		RestartPlugin: p.restartPlugin, Problems: p.reload.problems, Hypervisor: p.plugins.Hypervisor(), Secrets: p.plugins.Secrets(),
		ArtifactsDir: dirs.artifacts(), ReposDir: dirs.repos(), Dial: dialSandbox, Log: p.log,
		Host: func() api.Host { return hostInfo(p.reload.settings.now(), uuid, p.dev) }, Checks: p.checkHost, Console: p.console,
	}
	if p.guest, err = guest.New(gc); err != nil {
		return err
	}
	p.reload.store, p.reload.apply = store, func(cfg *config.Config) { p.guest.SetLimits(guestLimits(cfg)) }
	p.reload.plugins = func(ctx context.Context, cfg *config.Config) ([]string, hcl.Diagnostics) {
		return p.plugins.Reload(ctx, blocks(cfg))
	}
	p.control, err = control.New(cc)
	return err
}

func (p *parts) close() {
	if p.control != nil {
		_ = p.control.Close()
	}
	if p.guest != nil {
		_ = p.guest.Close()
	}
	if err := p.store.Close(); err != nil {
		p.log.Error("closing the database", "err", err)
	}
}

// run serves until ctx ends. Plugins stop last: what is being done needs them.
func (p *parts) run(ctx context.Context, dirs layout) error {
	controlLn, err := dirs.listen()
	if err != nil {
		return err
	}
	guestLn, err := guest.Listen(ctx, p.cfg.GuestListen.String())
	if err != nil {
		_ = controlLn.Close()
		return err
	}
	pluginCtx, stopPlugins := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPlugins()
	pluginsDone := make(chan error, 1)
	go func() { pluginsDone <- p.plugins.Run(pluginCtx) }()

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.control.Serve(gctx, controlLn) })
	g.Go(func() error { return p.guest.Serve(gctx, guestLn) })
	g.Go(func() error { return p.work(gctx) })
	g.Go(func() error { return p.notify.run(gctx) })
	g.Go(func() error { return p.notify.after(gctx, p.reload.run) })
	p.log.Info("serving", "version", version.String(), "socket", dirs.socket(), "guests", p.cfg.GuestListen.String())
	err = g.Wait()
	stopPlugins()
	if perr := <-pluginsDone; err == nil {
		err = perr
	}
	p.log.Info("stopped")
	return err
}

// work starts the scheduler once the plugins had their chance. A missing plugin
// fails what needs it, not the daemon.
func (p *parts) work(ctx context.Context) error {
	if err := p.plugins.Ready(ctx); err != nil && ctx.Err() == nil {
		p.log.Error("plugins are not all ready", "err", err, "hint", fault.HintOf(err))
	}
	return p.sched.Run(ctx)
}
