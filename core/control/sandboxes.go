package control

import (
	"net/http"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/scheduler"
	"github.com/agentlab/agentlab/core/state"
)

func (s *Server) createSandbox(r *http.Request, in api.SandboxCreate) (api.Accepted, error) {
	return once("sbx", in.ID, func() (api.Accepted, error) { return s.madeSandbox(r.Context(), in) },
		func() (api.Accepted, error) { return s.submitSandbox(r, in) })
}

func (s *Server) submitSandbox(r *http.Request, in api.SandboxCreate) (api.Accepted, error) {
	ttl, err := checkTTL(in.TTLSeconds)
	if err != nil {
		return api.Accepted{}, err
	}
	if err := checkName(in.Name); err != nil {
		return api.Accepted{}, err
	}
	spec, err := s.checkProfile(r.Context(), in.Profile, false)
	if err != nil {
		return api.Accepted{}, err
	}
	op, sb, err := s.cfg.Scheduler.CreateSandbox(r.Context(), scheduler.SandboxRequest{
		ID: in.ID, Name: in.Name, Profile: in.Profile, Spec: spec, Keep: in.Keep, TTL: ttl,
	})
	if err != nil {
		return api.Accepted{}, err
	}
	view := apiSandbox(sb)
	return api.Accepted{Operation: apiOperation(op), Sandbox: &view}, nil
}

func (s *Server) sandboxes(r *http.Request) (api.List[api.Sandbox], error) {
	f := state.SandboxFilter{All: queryFlag(r, "all")}
	for _, name := range r.URL.Query()["state"] {
		f.States = append(f.States, lab.SandboxState(strings.ToUpper(name)))
	}
	rows, err := s.cfg.Store.Sandboxes(r.Context(), f)
	if err != nil {
		return api.List[api.Sandbox]{}, err
	}
	return each(rows, apiSandbox), nil
}

func (s *Server) sandbox(r *http.Request) (api.Sandbox, error) {
	sb, err := s.cfg.Store.FindSandbox(r.Context(), r.PathValue("ref"))
	return apiSandbox(sb), err
}

func (s *Server) destroySandbox(r *http.Request) (api.Accepted, error) {
	sb, err := s.cfg.Store.FindSandbox(r.Context(), r.PathValue("ref"))
	if err != nil {
		return api.Accepted{}, err
	}
	op, err := s.cfg.Scheduler.DestroySandbox(r.Context(), sb.ID)
	if err != nil {
		return api.Accepted{}, err
	}
	view := apiSandbox(sb)
	return api.Accepted{Operation: apiOperation(op), Sandbox: &view}, nil
}

func (s *Server) sandboxEvents(r *http.Request) (api.List[api.Event], error) {
	sb, err := s.cfg.Store.FindSandbox(r.Context(), r.PathValue("ref"))
	if err != nil {
		return api.List[api.Event]{}, err
	}
	rows, err := s.newestEvents(r, state.EventFilter{SandboxID: sb.ID, Limit: int(queryInt(r, "tail", defaultLimit))})
	return each(rows, apiEvent), err
}

// newestEvents gives the last f.Limit events, oldest first.
func (s *Server) newestEvents(r *http.Request, f state.EventFilter) ([]lab.Event, error) {
	f.Newest = true
	return s.cfg.Store.Events(r.Context(), f)
}

// longestTTL bounds leases and jobs.
const longestTTL = 30 * 24 * time.Hour
