package control

import (
	"context"
	"net/http"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

func (s *Server) hostFindings(r *http.Request) (api.List[api.Finding], error) {
	out := api.List[api.Finding]{Items: []api.Finding{}}
	if s.cfg.Checks == nil {
		return out, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*askTimeout)
	defer cancel()
	out.Items = append(out.Items, s.cfg.Checks(ctx)...)
	return out, nil
}

// sandboxConsole gives text of a guest: nothing in it may be believed, or shown
// on a terminal as it is.
func (s *Server) sandboxConsole(w http.ResponseWriter, r *http.Request) error {
	sb, err := s.cfg.Store.FindSandbox(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	if s.cfg.Console == nil {
		return fault.New(fault.Unsupported, "consoles are not kept")
	}
	if sb.VMID == 0 || !sb.State.Live() {
		return fault.New(fault.Precondition, "sandbox %s is %s and has no console", sb.Name, sb.State)
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*askTimeout)
	defer cancel()
	text, err := s.cfg.Console(ctx, sb)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(text) // the reader is gone if this fails
	return nil
}
