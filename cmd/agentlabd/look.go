package main

import (
	"bytes"
	"context"
	"sync"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/control"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// checkHost asks the plugins that look at the host, side by side.
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
	wait.Wait()
	return append(fromHypervisor, fromNetwork...)
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
