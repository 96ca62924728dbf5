package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
	"github.com/agentlab/agentlab/sdk/secrets/bundle"
)

// bundleName admits dots and dashes, and no path.
var bundleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

const (
	noBundle  = 3 // exit status of the program
	waitDelay = time.Second
)

// driver runs a program for each call, and keeps nothing of what it printed.
type driver struct {
	command []string
	bundles []string
	timeout time.Duration
	log     hclog.Logger
}

var _ secrets.Driver = (*driver)(nil)

// health looks whether the program is there; running it would open a bundle.
func (d *driver) health(context.Context) plugin.Health {
	info, err := os.Stat(d.command[0])
	switch {
	case err != nil:
		return plugin.Health{State: plugin.Unavailable, Message: err.Error()}
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return plugin.Health{State: plugin.Unavailable, Message: d.command[0] + " is not a program"}
	}
	return plugin.Health{State: plugin.Ready}
}

// List gives the configured names.
func (d *driver) List(context.Context) ([]string, error) {
	names := slices.Clone(d.bundles)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Open has the program print the bundle.
func (d *driver) Open(ctx context.Context, name, purpose string) (secrets.Bundle, error) {
	src, err := d.run(ctx, name)
	if err != nil {
		return secrets.Bundle{}, err
	}
	doc, err := bundle.Parse(src)
	if err != nil {
		return secrets.Bundle{}, fault.New(fault.Invalid, "what %s printed: %w", d.command[0], err).WithResource("bundle %s", name)
	}
	d.log.Info("bundle opened", "bundle", name, "purpose", purpose)
	return secrets.Bundle{Document: doc, Version: version8(src)}, nil
}

// Describe names what is in the bundle. What keeps Open from working is a
// problem in the answer.
func (d *driver) Describe(ctx context.Context, name string) (secrets.Description, error) {
	desc := secrets.Description{File: d.command[0]}
	src, err := d.run(ctx, name)
	if errors.Is(err, fault.NotFound) || err != nil && !bundleName.MatchString(name) {
		return secrets.Description{}, err
	}
	if err != nil {
		desc.Problems = []string{err.Error()}
		return desc, nil
	}
	desc.Version = version8(src)
	parsed, err := bundle.Inspect(src)
	if err != nil {
		desc.Problems = []string{err.Error()}
		return desc, nil
	}
	desc.Keys, desc.Problems = parsed.Keys, slices.Concat(parsed.Errors, parsed.Warnings)
	return desc, nil
}

// version8 changes with the content.
func version8(src []byte) string {
	sum := sha256.Sum256(src)
	return hex.EncodeToString(sum[:8])
}

// run runs the program. The name has been checked and is no secret; the answer
// comes by a pipe. The whole group ends with the deadline.
func (d *driver) run(ctx context.Context, name string) ([]byte, error) {
	if !bundleName.MatchString(name) {
		return nil, fault.New(fault.Invalid, "%q is not the name of a bundle", name)
	}
	missing := fault.New(fault.NotFound, "bundle %s does not exist", name).WithResource("bundle %s", name)
	if !slices.Contains(d.bundles, name) {
		return nil, missing.WithHint("name it in bundles, in the plugin's config block")
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.command[0], d.command[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C", "AGENTLAB_BUNDLE=" + name}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	out := &limited{}
	cmd.Stdout = out
	runtime.LockOSThread() // the program dies with the thread that began it, and so with the plugin
	err := cmd.Run()
	runtime.UnlockOSThread()
	failed := fault.Error{Class: fault.Unavailable, Resource: "bundle " + name, Command: d.command[0], Err: err}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fault.New(fault.Timeout, "%s took longer than it may: %w", d.command[0], ctx.Err()).
			WithHint("raise timeout_seconds, or see why it is slow")
	case errors.As(err, &exit) && exit.ExitCode() == noBundle:
		return nil, missing
	case errors.As(err, &exit):
		failed.Message, failed.ExitCode = d.command[0]+" failed: "+exit.String(), exit.ExitCode()
		failed.Hint = "run it by hand with AGENTLAB_BUNDLE=" + name + "; what it prints is not shown here, since it may hold secrets"
		return nil, &failed
	case err != nil:
		failed.Message = "run " + d.command[0] + ": " + err.Error()
		return nil, &failed
	case out.Len() > bundle.MaxSize:
		return nil, fault.New(fault.Invalid, "%s printed more than %d bytes", d.command[0], bundle.MaxSize)
	}
	return out.Bytes(), nil
}

// limited keeps a little more than a bundle may have.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := bundle.MaxSize + 1 - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
