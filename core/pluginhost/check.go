package pluginhost

import (
	"context"
	"errors"
	"sync"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Check is List, but asks each plugin that runs how it is now, all at the same
// time, and waits at most healthTimeout for their answers. What it learns does
// not change what List says: that follows at the plugin's next turn.
func (h *Host) Check(ctx context.Context) []Status {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	all := h.all()
	list := make([]Status, len(all))
	var wg sync.WaitGroup
	for n, i := range all {
		wg.Go(func() { list[n] = i.ask(ctx) })
	}
	wg.Wait()
	return list
}

func (i *instance) ask(ctx context.Context) Status {
	i.mu.Lock()
	s, up := i.status, i.current
	i.mu.Unlock()
	if up != nil && (s.State == Ready || s.State == Degraded) {
		s.State, s.Reason, _ = judge(up.health(ctx))
	}
	return s
}

// judge reads an answer to the health check; silent means that there was none.
func judge(h plugin.Health, err error) (state State, reason string, silent bool) {
	switch {
	case errors.Is(err, fault.Timeout) || errors.Is(err, fault.Unavailable):
		return Degraded, "it does not answer its health check", true
	case err != nil:
		return Degraded, "its health check failed: " + oneLine(err.Error()), false
	case h.State != plugin.Ready:
		return Degraded, h.Message, false
	}
	return Ready, "", false
}
