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
		h, err := up.health(ctx)
		s.State, s.Reason, _ = judge(h, err, ctx.Err() != nil || up.cut(err))
	}
	return s
}

// cut reports whether the error may be of a connection that broke, rather than
// an answer.
func (up *upProcess) cut(err error) bool {
	return errors.Is(err, fault.Unavailable) && !up.base.Connected()
}

// judge reads an answer to the health check. An error is an answer as well,
// unless the time was over or the connection is cut: then the plugin is silent.
func judge(h plugin.Health, err error, none bool) (state State, reason string, silent bool) {
	switch {
	case err != nil && none:
		return Degraded, "it does not answer its health check", true
	case err != nil:
		return Degraded, "its health check failed: " + oneLine(err.Error()), false
	case h.State != plugin.Ready:
		return Degraded, h.Message, false
	}
	return Ready, "", false
}
