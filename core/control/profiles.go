package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/sdk/fault"
)

func (s *Server) profiles(*http.Request) (api.Profiles, error) {
	out := api.Profiles{Items: []api.Profile{}, Problems: s.cfg.Profiles.Problems()}
	for _, name := range s.cfg.Profiles.Names() {
		spec, err := s.cfg.Profiles.Spec(name)
		if err != nil {
			continue // reloaded in between; Problems tells
		}
		out.Items = append(out.Items, apiProfile(name, spec))
	}
	return out, nil
}

func (s *Server) profileCheck(r *http.Request) (api.ProfileCheck, error) {
	name := r.PathValue("name")
	spec, err := s.spec(name)
	problems := []error{err}
	if err == nil {
		problems = s.specProblems(r.Context(), spec, true)
	}
	out := api.ProfileCheck{Name: name, Findings: []api.Finding{}}
	for _, err := range problems {
		out.Findings = append(out.Findings, api.Finding{
			Source: "profile " + name, ID: string(fault.ClassOf(err)), Level: api.LevelError,
			Message: err.Error(), Fix: fault.HintOf(err),
		})
	}
	return out, nil
}

// checkProfile resolves the profile and asks whether what it names is there.
func (s *Server) checkProfile(ctx context.Context, name string, runsAgent bool) (lab.Spec, error) {
	spec, err := s.spec(name)
	if err != nil {
		return spec, err
	}
	problems := s.specProblems(ctx, spec, runsAgent)
	for i, err := range problems {
		problems[i] = fmt.Errorf("profile %q: %w", name, err)
	}
	return spec, problem.Join(problems...)
}

// spec resolves a profile. Its errors name it.
func (s *Server) spec(name string) (lab.Spec, error) {
	spec, err := s.cfg.Profiles.Spec(name)
	if !errors.Is(err, fault.NotFound) {
		return spec, err
	}
	return spec, fault.New(fault.Invalid, "%w", err).WithHint("%s", cmp.Or(fault.HintOf(err), "profiles: "+orNone(s.cfg.Profiles.Names())))
}

// specProblems tells all that is wrong with what a profile names.
func (s *Server) specProblems(ctx context.Context, spec lab.Spec, runsAgent bool) []error {
	problems := []error{checkNetwork(spec), s.checkTemplate(ctx, spec, runsAgent), s.checkBundle(ctx, spec.Bundle)}
	return slices.DeleteFunc(problems, func(err error) bool { return err == nil })
}

func (s *Server) checkTemplate(ctx context.Context, spec lab.Spec, runsAgent bool) error {
	tmpl, err := s.findTemplate(ctx, spec.Template)
	if err != nil {
		return err
	}
	if runsAgent && slices.Contains(agentCLIs, spec.AgentCommand) && !slices.Contains(tmpl.Agents, spec.AgentCommand) {
		return fault.New(fault.Invalid, "template %s has no %s", spec.Template, spec.AgentCommand).
			WithHint("agents in the template: %s; a shell line in agent.command needs none", orNone(tmpl.Agents))
	}
	return nil
}

// agentCLIs are the programs that agent.command may name; anything else there is
// a shell line.
var agentCLIs = []string{"claude", "codex", "opencode"}

// agent is what the runner in the guest would choose to run, as far as that is
// known: script is how the repository has its own, "" for unknown. It is
// fault.Precondition when there would be nothing.
func (s *Server) agent(ctx context.Context, spec lab.Spec, script string) (string, error) {
	switch {
	case spec.AgentCommand != "" && !slices.Contains(agentCLIs, spec.AgentCommand):
		return spec.AgentCommand, nil
	case script == api.ScriptExecutable:
		return guestapi.RunScript, nil
	case script == "" || spec.AgentCommand != "":
		return spec.AgentCommand, nil
	}
	tmpl, err := s.findTemplate(ctx, spec.Template)
	if err != nil {
		return "", nil // that of a sandbox that is there may have gone
	}
	for _, name := range agentCLIs {
		if slices.Contains(tmpl.Agents, name) {
			return name, nil
		}
	}
	none := fault.New(fault.Precondition, "nothing to run: the profile has no agent.command, template %s no agent CLI, and the repository no %s", spec.Template, guestapi.RunScript).
		WithHint("commit an executable %s, or set agent.command in the profile", guestapi.RunScript)
	if script == api.ScriptPlain {
		none = fault.New(fault.Precondition, "nothing to run: %s of the repository is not executable, the profile has no agent.command, and template %s no agent CLI", guestapi.RunScript, spec.Template).
			WithHint("chmod +x %[1]s && git add %[1]s, and commit", guestapi.RunScript)
	}
	return "", none
}

func checkNetwork(spec lab.Spec) error {
	switch spec.NetworkMode {
	case "off", "nat", "allowlist":
	default:
		return fault.New(fault.Unsupported, "network mode %q is not supported", spec.NetworkMode).WithHint("use off, nat or allowlist")
	}
	if _, err := lab.ParseAllow(spec.NetworkAllow); err != nil {
		return fault.New(fault.Invalid, "network allow list: %w", err)
	}
	return nil
}
