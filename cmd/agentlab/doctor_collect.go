package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/bugreport"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/version"
)

// How much of each listing a bundle has.
const (
	operationsShown = 100
	sandboxesShown  = 200
	jobsShown       = 50
	artifactsShown  = 500
	logLines        = 5000
)

// collect writes the bundle.
func (d *doctor) collect(ctx context.Context) error {
	top := "agentlab-doctor-" + time.Now().UTC().Format("20060102-150405")
	if d.output == "" {
		d.output = top + ".tar.gz"
	}
	b := bugreport.New(secretsAround(d.env.Global.Token, d.env.Global.Config)...)
	b.JSON("findings.json", "what doctor found", d.Findings)
	b.Text("versions.txt", "versions of this program, the daemon and the kernel", []byte(d.versions()))
	if d.down != nil {
		b.Missing("all that the daemon knows", d.down)
	} else {
		b.JSON("status.json", "the daemon at a glance", d.status)
		b.JSON("host.json", "the daemon's host", d.host)
		b.JSON("profiles.json", "usable profiles, and what is wrong with others", d.profiles)
		for _, p := range d.status.Plugins {
			addJSON(b, "plugin-"+p.Kind+".json", "the "+p.Kind+" plugin", func() (api.PluginInfo, error) { return d.c.Plugin(ctx, p.Kind) })
		}
		d.collectSubject(ctx, b)
		d.collectLogs(ctx, b)
	}
	if ctx.Err() != nil { // parts are missing only because of that
		return ctx.Err()
	}
	if err := b.Write(d.output, top); err != nil {
		return err
	}
	d.Bundle, d.Files = d.output, b.Files()
	return nil
}

func addJSON[T any](b *bugreport.Bundle, name, about string, get func() (T, error)) {
	v, err := get()
	if err != nil {
		b.Missing(name, err)
		return
	}
	b.JSON(name, about, v)
}

// collectSubject takes what there is of one sandbox, or where none was named,
// the newest of all.
func (d *doctor) collectSubject(ctx context.Context, b *bugreport.Bundle) {
	ops, events := client.OperationQuery{Limit: operationsShown}, client.EventQuery{Tail: eventsTailMax, Once: true}
	if s := d.sandbox; s != nil {
		ops.SandboxID, events.SandboxID = s.ID, s.ID
		b.JSON("sandbox.json", "the sandbox", s)
		if d.job != nil {
			job := withoutTask(*d.job)
			job.Artifacts = job.Artifacts[:min(len(job.Artifacts), artifactsShown)]
			b.JSON("job.json", "the job, without its task", job)
		}
	} else {
		addJSON(b, "sandboxes.json", fmt.Sprintf("the newest sandboxes, at most %d", sandboxesShown), func() ([]api.Sandbox, error) {
			list, err := d.c.Sandboxes(ctx, client.SandboxQuery{})
			return list[max(0, len(list)-sandboxesShown):], err
		})
		addJSON(b, "jobs.json", fmt.Sprintf("the newest jobs, at most %d, without their tasks", jobsShown), func() ([]api.Job, error) {
			list, err := d.c.Jobs(ctx, client.JobQuery{Limit: jobsShown})
			for i := range list {
				list[i] = withoutTask(list[i])
			}
			return list, err
		})
	}
	addJSON(b, "operations.json", fmt.Sprintf("the newest operations, at most %d", operationsShown), func() ([]api.Operation, error) {
		return d.c.Operations(ctx, ops)
	})
	var text strings.Builder
	for e, err := range d.c.Events(ctx, events) {
		if err != nil {
			b.Missing("events.jsonl", err)
			return
		}
		_ = writeJSON(&text, e, "") // to memory
	}
	b.Text("events.jsonl", fmt.Sprintf("the newest events, at most %d", eventsTailMax), []byte(text.String()))
}

// withoutTask hides what people wrote for an agent, which may be anything.
func withoutTask(j api.Job) api.Job {
	j.Task = fmt.Sprintf("(left out, %d characters)", len([]rune(j.Task)))
	return j
}

func (d *doctor) collectLogs(ctx context.Context, b *bugreport.Bundle) {
	if d.job != nil {
		addText(b, "job.log", "the end of the agent's output", func() (io.ReadCloser, error) {
			return d.c.JobLog(ctx, d.job.ID, client.LogQuery{Tail: logLines})
		})
	}
	if d.sandbox != nil {
		addText(b, "console.txt", "the end of what the guest printed on its console", func() (io.ReadCloser, error) {
			return d.c.Console(ctx, d.sandbox.ID)
		})
	}
	addText(b, "daemon.log", "the end of the daemon's log", d.daemonLog)
}

func addText(b *bugreport.Bundle, name, about string, open func() (io.ReadCloser, error)) {
	r, err := open()
	if err != nil {
		b.Missing(name, err)
		return
	}
	defer func() { _ = r.Close() }()
	all, err := io.ReadAll(io.LimitReader(r, 64<<20))
	if err != nil {
		b.Missing(name, err)
		return
	}
	b.Text(name, about, all)
}

// daemonLog opens the end of the daemon's log, when the daemon is this
// machine's: one elsewhere could name any file of ours to be handed on.
func (d *doctor) daemonLog() (io.ReadCloser, error) {
	path := d.host.LogFile
	switch {
	case !d.c.Local():
		return nil, errors.New("the daemon is on another machine")
	case path == "":
		return nil, errors.New("the daemon writes to standard error only; with systemd: journalctl -u agentlabd")
	case filepath.Ext(path) != ".log":
		return nil, fmt.Errorf("%s does not look like a log", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err == nil && st.Size() > 2*bugreport.MaxFile {
		_, err = f.Seek(-2*bugreport.MaxFile, io.SeekEnd)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *doctor) versions() string {
	daemon := d.status.Version
	if d.down != nil {
		daemon = "unknown: " + string(fault.ClassOf(d.down))
	}
	kernel := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	return fmt.Sprintf("agentlab %s\nagentlabd %s\n%s\n%s\n", version.String(), daemon, runtime.Version(), kernel)
}

// secretsAround are values that this program was given: the daemon's token, and
// what the environment holds under names of secrets.
func secretsAround(flagToken, config string) []secret.Value {
	out := []secret.Value{secret.New(flagToken)}
	if f, err := readClientFile(config); err == nil {
		out = append(out, f.Token)
	}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		name = strings.ToUpper(name)
		for _, word := range []string{"TOKEN", "SECRET", "PASS", "KEY", "CREDENTIAL", "AUTH"} {
			if strings.Contains(name, word) && len(value) >= 8 && !filepath.IsAbs(value) {
				out = append(out, secret.New(value))
				break
			}
		}
	}
	return out
}
