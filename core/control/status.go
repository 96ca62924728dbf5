package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/disk"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// lowDisk is where status begins to warn, in bytes above DiskFloor.
const lowDisk = 1 << 30

func (s *Server) health(*http.Request) (api.Health, error) { return api.Health{OK: true}, nil }

func (s *Server) host(*http.Request) (api.Host, error) { return s.cfg.Host(), nil }

func (s *Server) status(r *http.Request) (api.Status, error) {
	counts, err := s.cfg.Store.Counts(r.Context())
	if err != nil {
		return api.Status{}, err
	}
	failed, err := s.cfg.Store.Operations(r.Context(), state.OperationFilter{States: []lab.OperationState{lab.OpFailed}, Limit: 5})
	if err != nil {
		return api.Status{}, err
	}
	out := api.Status{
		Version: s.cfg.Host().Version, StartedAt: s.started.UTC(), Plugins: s.cfg.Plugins(),
		Sandboxes: counts.Sandboxes, Jobs: counts.Jobs, ArtifactBytes: counts.ArtifactBytes,
		FailedOperations: each(newestFirst(failed), apiOperation).Items,
	}
	if s.cfg.Problems != nil {
		out.Problems = s.cfg.Problems()
	}
	out.Problems = append(out.Problems, s.cfg.Profiles.Problems()...)
	out.DiskFreeBytes, err = disk.Free(s.cfg.ArtifactsDir)
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
	} else if out.DiskFreeBytes < s.cfg.DiskFloor+lowDisk {
		out.Problems = append(out.Problems, fmt.Sprintf(
			"only %d MiB are free under %s: free disk space, below %d MiB no job is taken", out.DiskFreeBytes>>20, s.cfg.ArtifactsDir, s.cfg.DiskFloor>>20))
	}
	return out, nil
}

func (s *Server) plugins(r *http.Request) (api.List[api.Plugin], error) {
	list := s.cfg.Plugins
	if queryFlag(r, "check") && s.cfg.CheckPlugins != nil {
		list = func() []api.Plugin { return s.cfg.CheckPlugins(r.Context()) }
	}
	return each(list(), func(p api.Plugin) api.Plugin { return p }), nil
}

func (s *Server) plugin(r *http.Request) (api.PluginInfo, error) {
	return s.cfg.Plugin(r.PathValue("name"))
}

// restartLimit bounds a restart: a plugin may take long to be configured.
const restartLimit = 2 * time.Minute

func (s *Server) restartPlugin(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.RestartPlugin == nil {
		return fault.New(fault.Unsupported, "plugins are not restarted one by one")
	}
	ctx, cancel := context.WithTimeout(r.Context(), restartLimit)
	defer cancel()
	p, err := s.cfg.RestartPlugin(ctx, r.PathValue("name"))
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, p)
}
