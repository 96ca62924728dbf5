package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// warmLimit bounds a memory template's making: a boot without KVM on a busy host,
// and the one that another caller is at before.
const warmLimit = 10 * time.Minute

func (s *Server) templateList(r *http.Request) (api.List[api.Template], error) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	found, err := s.cfg.Hypervisor.ListTemplates(ctx)
	out := api.List[api.Template]{Items: []api.Template{}}
	if err != nil {
		return out, fmt.Errorf("list templates: %w", err)
	}
	for _, t := range found {
		out.Items = append(out.Items, apiTemplate(t))
	}
	return out, nil
}

// warmTemplate answers when sandboxes of the size start from memory. A caller that
// goes gives it up.
func (s *Server) warmTemplate(r *http.Request, in api.TemplateWarm) (api.Template, error) {
	var none api.Template
	req := hypervisor.WarmRequest{
		Template: r.PathValue("name"), Cores: in.Cores, MemoryBytes: in.MemoryMB << 20, RootDiskBytes: in.DiskGB << 30,
	}
	switch {
	case in.Profile != "" && (in.Cores != 0 || in.MemoryMB != 0 || in.DiskGB != 0):
		return none, fault.New(fault.Invalid, "a profile and a size were given").WithHint("name one of them")
	case in.Profile != "":
		spec, err := s.spec(in.Profile)
		if err != nil {
			return none, err
		}
		req.Cores, req.MemoryBytes, req.RootDiskBytes = spec.Cores, spec.MemoryMB<<20, spec.DiskGB<<30
	case in.Cores == 0 || in.MemoryMB == 0:
		return none, fault.New(fault.Invalid, "no size was given").WithHint("name a profile, or cores and memory_mb")
	}
	if _, err := s.findTemplate(r.Context(), req.Template); err != nil {
		return none, err
	}
	warmer, ok := s.cfg.Hypervisor.(hypervisor.TemplateWarmer)
	if !ok {
		return none, fault.New(fault.Unsupported, "this daemon's hypervisor starts no VM from memory")
	}
	ctx, cancel := context.WithTimeout(r.Context(), warmLimit)
	defer cancel()
	t, err := warmer.WarmTemplate(ctx, req, nil)
	if errors.Is(err, fault.Unsupported) {
		return none, fault.New(fault.Unsupported, "the hypervisor plugin starts no VM from memory: %w", err).WithHint("agentlab plugin info hypervisor lists what it can")
	}
	if err != nil {
		return none, fmt.Errorf("warm template %s: %w", req.Template, err)
	}
	return apiTemplate(t), nil
}

func apiTemplate(t hypervisor.Template) api.Template {
	out := api.Template{
		VMID: t.VMID, Name: t.Name, Version: t.Version, SSHUser: t.SSHUser,
		Agents: append([]string{}, t.Agents...), Findings: []api.Finding{}, Memory: []api.MemoryTemplate{},
	}
	for _, f := range t.Findings {
		out.Findings = append(out.Findings, FindingOf("template "+t.Name, f))
	}
	for _, m := range t.Memory {
		out.Memory = append(out.Memory, api.MemoryTemplate{
			Cores: m.Cores, MemoryMB: m.MemoryBytes >> 20, DiskGB: (m.RootDiskBytes + 1<<30 - 1) >> 30,
			Created: m.Created, DiskBytes: m.DiskBytes,
		})
	}
	slices.SortFunc(out.Memory, func(a, b api.MemoryTemplate) int { return a.Created.Compare(b.Created) })
	return out
}

// FindingOf is what a plugin found, for the API. A level of a newer plugin is a
// warning.
func FindingOf(source string, f plugin.Finding) api.Finding {
	level := api.LevelWarning
	switch f.Level {
	case plugin.LevelOK:
		level = api.LevelOK
	case plugin.LevelMissing:
		level = api.LevelError
	}
	return api.Finding{Source: source, ID: f.ID, Level: level, Message: f.Message, Fix: f.Fix}
}
