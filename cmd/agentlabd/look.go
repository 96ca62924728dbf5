package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/check"
	"github.com/agentlab/agentlab/core/control"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// checkHost asks the plugins that look at the host, side by side, and looks itself
// at what the next start needs.
func (p *parts) checkHost(ctx context.Context) []api.Finding {
	var fromHypervisor, fromNetwork []api.Finding
	var wait sync.WaitGroup
	wait.Go(func() {
		report, err := p.plugins.Hypervisor().CheckHost(ctx)
		fromHypervisor = findings(plugin.Hypervisor, report.Findings, err)
	})
	wait.Go(func() {
		found, err := p.plugins.Network().CheckHost(ctx, hostNetwork(p.cfg))
		fromNetwork = findings(plugin.Network, found, err)
	})
	fromFiles := standing(check.Standing(p.reload.settings.now()))
	wait.Wait()
	return slices.Concat(fromHypervisor, fromNetwork, fromFiles, p.reload.findings())
}

// mistakes are what config check calls errors and a start lets pass: a key that is
// not there keeps nobody's sandboxes from running.
func mistakes(cfg *config.Config) (out []string) {
	for _, p := range check.Reload(cfg).Problems() {
		if p.Severity == "error" {
			out = append(out, p.String())
		}
	}
	return out
}

// standing makes warnings of what is no trouble yet: the daemon runs.
func standing(diags config.Diagnostics) []api.Finding {
	const source, id = "configuration", "files"
	var out []api.Finding
	for _, p := range diags.Problems() {
		place := p.File
		if p.Line > 0 {
			place = fmt.Sprintf("%s:%d", p.File, p.Line)
		}
		out = append(out, api.Finding{Source: source, ID: id, Level: api.LevelWarning, Message: place + ": " + p.Message, Fix: p.Hint})
	}
	if len(out) == 0 {
		out = append(out, api.Finding{Source: source, ID: id, Level: api.LevelOK, Message: "keys and plugins' binaries are as the next start needs them"})
	}
	return out
}

func findings(kind plugin.Kind, found []plugin.Finding, err error) []api.Finding {
	if err != nil {
		return []api.Finding{{
			Source: string(kind), ID: string(fault.ClassOf(err)), Level: api.LevelError,
			Message: "the host was not checked: " + err.Error(), Fix: fault.HintOf(err),
		}}
	}
	var out []api.Finding
	for _, f := range found {
		out = append(out, control.FindingOf(string(kind), f))
	}
	return out
}

// consoleKept is the most that the contract gives of a console, in bytes.
const consoleKept = 64 << 10

// console gives what a guest printed, without what it was given as secrets.
func (p *parts) console(ctx context.Context, sb lab.Sandbox) ([]byte, error) {
	reader, ok := p.plugins.Hypervisor().(hypervisor.ConsoleReader)
	if !ok {
		return nil, fault.New(fault.Unsupported, "the hypervisor plugin keeps no consoles")
	}
	text, err := reader.Console(ctx, hypervisor.Ref{RequestID: "console", VMID: sb.VMID, Owner: sb.Owner})
	if err != nil {
		return nil, err
	}
	if len(text) >= consoleKept { // its first line may be the rest of one, and of a secret
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return p.guest.Redact(ctx, sb, text)
}
