package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/confine"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/enroll"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/jobrun"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/secretsfs"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/version"
)

// agentUser is the login of people and agent in every template.
const agentUser = "agent"

// idleBeat is the shortest time between two signs of life of a sandbox without a
// job. Its host mostly leaves them without an answer until there is a job.
const idleBeat = 3 * time.Second

// refusedBeat is the same once the host has revoked the credential, as it does
// before it destroys a sandbox.
const refusedBeat = 15 * time.Minute

// innerSandbox is the variable with which an operator switches bubblewrap off.
const innerSandbox = "AGENTLAB_INNER_SANDBOX"

// guest is this machine and its host.
type guest struct {
	layout layout.Layout
	login  layout.Login
	id     enroll.Identity
	host   *guestclient.Client
	log    hclog.Logger
}

// serve makes the guest known, lays its secrets out, runs its job if it has
// one, and then shows that it lives until there is another or ctx ends. A
// sandbox is idle with no more secrets than its host gives it then.
func serve(ctx context.Context, l layout.Layout, log hclog.Logger) error {
	login, err := l.Login(agentUser)
	if err != nil {
		return err
	}
	id, err := enroll.Load(ctx, l, log)
	if err != nil {
		return ended(ctx, err)
	}
	g := guest{layout: l, login: login, id: id, host: guestclient.New(id.Bootstrap.Controller, id.Credential), log: log}
	defer g.host.Close()
	cfg := enroll.Config{Layout: l, Host: g.host, Version: version.String(), Log: log, Console: console(l)}
	for ctx.Err() == nil {
		payload, err := enroll.Fetch(ctx, cfg, g.id)
		if err != nil {
			return ended(ctx, err)
		}
		log.Info("host answered", "sandbox", payload.Sandbox, "vmid", payload.VMID)
		if err := g.work(ctx, payload); err != nil {
			return ended(ctx, err)
		}
		g.id.Bootstrap.Token = "" // it has bought the credential
		if payload.Job != nil {
			if err := g.settle(ctx, cfg); err != nil {
				return ended(ctx, err)
			}
		}
		idle(ctx, g.host)
	}
	return nil
}

// work lays the secrets out and runs the job, if there is one.
func (g guest) work(ctx context.Context, p guestapi.Payload) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	url := ""
	if p.Job != nil {
		url = p.Job.RepoURL
	}
	bundle, err := secretsfs.Parse(p.Secrets)
	var env []string
	if err == nil {
		env, err = secretsfs.Place(g.layout, g.login, bundle, url, exe)
	}
	if p.Job == nil {
		if err != nil { // people can still log in and see
			g.log.Error("secrets are not in place", "err", err)
		}
		return nil
	}
	if err != nil {
		return refuse(ctx, g.host, p.Job.ID, fmt.Errorf("lay secrets out: %w", err))
	}
	programs, err := confine.New(ctx, g.layout, g.login)
	if err != nil {
		return err
	}
	known := append(bundle.Values(), g.id.Credential, secret.New(g.id.Bootstrap.Token))
	known = append(known, secretsfs.FromURL(url)...)
	r := &jobrun.Runner{
		Layout: g.layout, Login: g.login, Host: g.host, Programs: programs, Exe: exe, Env: env,
		Redactor: secret.NewRedactor(known...), Secrets: append(bundle.Placed(), secretsfs.FromURL(url)...), NoInnerSandbox: override(g.layout, innerSandbox) == "0",
		Beat: guestapi.HeartbeatEvery, Log: g.log,
	}
	return r.Run(ctx, *p.Job)
}

// settle lays out what the sandbox may have once its job is over: the job that
// it was made for takes the secrets with it. A host that refuses to answer is
// done with the sandbox.
func (g guest) settle(ctx context.Context, cfg enroll.Config) error {
	payload, err := enroll.Again(ctx, cfg, g.id)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		g.log.Warn("secrets are removed", "err", err)
	}
	payload.Job = nil // idle learns of another
	return g.work(ctx, payload)
}

// refuse reports a job that cannot be begun.
func refuse(ctx context.Context, host *guestclient.Client, job string, cause error) error {
	return guestclient.Retry(ctx, nil, func(ctx context.Context) error {
		_, err := host.Report(ctx, guestapi.Report{
			Job: job, Kind: guestapi.ReportFinished, Status: "failed", ExitCode: 125, Message: cause.Error(),
		})
		return err
	})
}

// idle shows that the guest lives, until a job waits at the host.
func idle(ctx context.Context, host *guestclient.Client) {
	for {
		began := time.Now()
		reply, err := host.Report(ctx, guestapi.Report{Kind: guestapi.ReportHeartbeat, Wait: guestapi.LongestWait})
		pause := idleBeat // a host that does not answer now may do so at the next beat
		switch {
		case err == nil && reply.Fetch:
			return
		case err == nil:
			pause -= time.Since(began)
		case errors.Is(err, fault.Denied):
			pause = refusedBeat
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// ended makes a wanted end of one that came by a signal.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// console writes a line where people look at a VM that does not come up.
func console(l layout.Layout) func(string) {
	return func(line string) {
		f, err := os.OpenFile(l.At("/dev/console"), os.O_WRONLY, 0)
		if err != nil {
			return // the journal has it too
		}
		defer f.Close()
		fmt.Fprintf(f, "\r\n%s\r\n", line)
	}
}

// override reads a setting of the operator: from the environment, else from
// the override file.
func override(l layout.Layout, name string) string {
	if v, ok := os.LookupEnv(name); ok {
		return v
	}
	f, err := os.Open(l.Override())
	if err != nil {
		return ""
	}
	defer f.Close()
	value := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if key, v, ok := strings.Cut(strings.TrimSpace(sc.Text()), "="); ok && key == name {
			value = strings.Trim(v, `"'`)
		}
	}
	return value
}
