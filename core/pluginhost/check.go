package pluginhost

import (
	"context"
	"sync"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// Check is List, but asks each plugin that runs how it is now, all at the same
// time, and waits at most healthTimeout for their answers. What it learns does
// not change what List says: that follows at the plugin's next turn.
func (h *Host) Check(ctx context.Context) []Status {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	list := h.List()
	var wg sync.WaitGroup
	for n := range list {
		if s := &list[n]; s.State == Ready || s.State == Degraded {
			wg.Go(func() { h.ask(ctx, s) })
		}
	}
	wg.Wait()
	return list
}

func (h *Host) ask(ctx context.Context, s *Status) {
	health, err := plugin.NewClient(h.line(plugin.Kind(s.Kind))).Health(ctx)
	switch {
	case err != nil:
		s.State, s.Reason = Degraded, "it does not answer: "+err.Error()
	case health.State != plugin.Ready:
		s.State, s.Reason = Degraded, health.Message
	default:
		s.State, s.Reason = Ready, ""
	}
}
