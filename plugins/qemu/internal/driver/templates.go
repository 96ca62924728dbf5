package driver

import (
	"context"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// ListTemplates implements hypervisor.Driver.
func (d *Driver) ListTemplates(ctx context.Context) ([]hypervisor.Template, error) {
	entries, err := d.catalog.List()
	if err != nil {
		return nil, err
	}
	var out []hypervisor.Template
	for _, e := range entries {
		t := hypervisor.Template{VMID: e.VMID, Name: e.Name, Version: e.Version, SSHUser: e.SSHUser, Agents: e.Agents}
		switch {
		case e.Err != nil:
			fix := fault.HintOf(e.Err)
			if fix == "" {
				fix = "build the image again, or remove " + e.Dir
			}
			t.Findings = []plugin.Finding{{ID: "manifest", Level: plugin.LevelMissing, Message: e.Err.Error(), Fix: fix}}
		case e.Shadowed:
			t.Findings = []plugin.Finding{{
				ID: "superseded", Level: plugin.LevelWarning,
				Message: e.Dir + " has the VMID or name of a template that comes first",
				Fix:     "remove the folder once no VM depends on it",
			}}
		}
		out = append(out, t)
	}
	return out, ctx.Err()
}
