package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/version"
)

// exitConfig is EX_CONFIG of sysexits(3): another start would end the same way.
// agentlabd.service knows the number.
const exitConfig = 78

// wrongConfig marks an error that only another configuration helps against.
type wrongConfig struct{ error }

func (e wrongConfig) Unwrap() error { return e.error }

type options struct {
	config  string
	version bool
	dev     devOptions
}

func main() {
	opts, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "agentlabd:", err)
		fmt.Fprintln(os.Stderr, "hint:", cmp.Or(fault.HintOf(err), "agentlabd --help lists the flags"))
		os.Exit(2)
	}
	if opts.version {
		fmt.Println("agentlabd", version.String())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, opts); err != nil {
		stop()
		os.Exit(explain(err))
	}
}

// explain tells the error to a person and gives the exit code. A wrong
// configuration has one of its own.
func explain(err error) int {
	fmt.Fprintln(os.Stderr, "agentlabd:", err)
	hint, code := fault.HintOf(err), 1
	if wrong := (wrongConfig{}); errors.As(err, &wrong) {
		code = exitConfig
		if hint == "" {
			hint = "correct it until agentlab config check is content, then start agentlabd again; sandboxes go on running meanwhile"
		}
	}
	if hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", hint)
	}
	return code
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("agentlabd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.config, "config", config.DefaultFile, "configuration `file`")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	fs.BoolVar(&o.dev.on, "dev", false, "throw-away daemon in a network namespace of its own; makes what it needs under --dev-dir")
	fs.BoolVar(&o.dev.stop, "stop", false, "with --dev: end that daemon, its sandboxes and its namespace, and remove its directories")
	fs.BoolVar(&o.dev.unlessUsed, "unless-used", false, "with --dev --stop: refuse when that daemon has sandboxes, jobs or files other than make demo's")
	fs.StringVar(&o.dev.dir, "dev-dir", devDir, "with --dev: `directory` of its configuration, keys and state")
	fs.StringVar(&o.dev.runDir, "dev-run-dir", "/run/agentlab-dev", "with --dev: `directory` of its socket and namespace; keep it short")
	fs.StringVar(&o.dev.template, "template", "", "with --dev: template `folder` for the qemu plugin")
	fs.StringVar(&o.dev.plugins, "plugin-dir", "", "with --dev: `directory` of the plugin binaries (default: beside agentlabd)")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage(os.Stdout, fs)
		return o, err
	case err != nil:
		return o, flagError(fs, err)
	case fs.NArg() > 0:
		return o, fmt.Errorf("%q: it takes only flags", fs.Arg(0))
	}
	return o, nil
}

// flagError says what package flag means in the words of this project; that writes
// one dash.
func flagError(fs *flag.FlagSet, err error) error {
	_, name, unknown := strings.Cut(err.Error(), "not defined: -")
	if !unknown {
		return errors.New(singleDash.ReplaceAllString(err.Error(), "${1}--${2}"))
	}
	wrong := fault.New(fault.Invalid, "unknown flag --%s", name)
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if meant := config.Nearest(name, names); meant != "" {
		return wrong.WithHint("did you mean --%s?", meant)
	}
	return wrong
}

var singleDash = regexp.MustCompile(`((?:argument: |flag |for ))-(\w)`)

// usage lists the flags as this project writes them.
func usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintln(w, "Usage: agentlabd [flags]\n\nThe daemon of AgentLab. systemctl start agentlabd starts the installed one.\n\nFlags:")
	fs.VisitAll(func(f *flag.Flag) {
		value, about := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			about += " (default: " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-26s %s\n", strings.TrimSpace("--"+f.Name+" "+strings.ToUpper(value)), about)
	})
}

func start(ctx context.Context, o options) error {
	switch {
	case o.dev.unlessUsed && !o.dev.stop:
		return fault.New(fault.Invalid, "--unless-used goes with --dev --stop")
	case o.dev.stop && !o.dev.on:
		return fault.New(fault.Invalid, "--stop goes with --dev").WithHint("the installed daemon is stopped by systemctl stop agentlabd")
	case o.dev.stop:
		return stopDev(ctx, o.dev)
	case o.dev.on:
		path, err := prepareDev(o.dev)
		if err != nil {
			return fmt.Errorf("prepare --dev: %w", err)
		}
		o.config = path
	}
	return serve(ctx, o)
}
