package driver

import (
	"context"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/template"
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
	warm, err := d.warmTemplates()
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
				ID: hypervisor.FindingSuperseded, Level: plugin.LevelWarning,
				Message: e.Dir + " is not used: another image of its VMID or name comes first",
				Fix:     "remove such folders once no VM depends on them; images/build.sh --prune does so for all but the newest three",
			}}
		default:
			t.Memory = d.memoryOf(ctx, e, warm)
		}
		out = append(out, t)
	}
	return out, ctx.Err()
}

// template is one that is in use.
func (d *Driver) template(ctx context.Context, vmid uint32) (hypervisor.Template, error) {
	all, err := d.ListTemplates(ctx)
	if err != nil {
		return hypervisor.Template{}, err
	}
	for _, t := range all {
		if t.VMID == vmid && len(t.Findings) == 0 {
			return t, nil
		}
	}
	return hypervisor.Template{}, fault.New(fault.NotFound, "template %d went while its memory was made", vmid)
}

// warmTemplates gives the memory templates that are whole.
func (d *Driver) warmTemplates() ([]memory.Template, error) {
	keys, err := d.memory.List()
	if err != nil {
		return nil, err
	}
	var out []memory.Template
	for _, key := range keys {
		if t, err := d.memory.Find(key); err == nil {
			out = append(out, t)
		}
	}
	return out, nil
}

// memoryOf is what VMs made of this image now would start from.
func (d *Driver) memoryOf(ctx context.Context, e template.Entry, warm []memory.Template) []hypervisor.MemoryTemplate {
	var out []hypervisor.MemoryTemplate
	for _, t := range warm {
		fits, err := d.fits(ctx, t, []template.Entry{e})
		if err != nil || !fits || !d.cfg.warms() {
			continue
		}
		out = append(out, hypervisor.MemoryTemplate{
			Cores: t.Fit.Cores, MemoryBytes: t.Fit.MemoryMiB << 20, RootDiskBytes: t.Fit.DiskBytes,
			Created: t.Created, DiskBytes: d.memory.DiskBytes(t.Key),
		})
	}
	return out
}
