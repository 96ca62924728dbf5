package control

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// templatesFresh is how long an answer is believed when it holds what is wanted,
// and how long a plugin that gave none is not asked for what is known.
const templatesFresh = 10 * time.Second

// templateCache spares the hypervisor plugin a question per request. Those that
// come while it is asked share the answer, and wait once for a plugin that hangs.
type templateCache struct {
	flight singleflight.Group

	mu sync.Mutex
	// mu guards:
	list   []hypervisor.Template
	at     time.Time
	failed time.Time
}

// find gives a list that holds want, or a new one. When the plugin is down, what
// it last said is used.
func (c *templateCache) find(ctx context.Context, from Templates, want string) ([]hypervisor.Template, error) {
	c.mu.Lock()
	list, at, failed := c.list, c.at, c.failed
	c.mu.Unlock()
	known := slices.ContainsFunc(list, func(t hypervisor.Template) bool { return isTemplate(t, want) })
	if known && (time.Since(at) < templatesFresh || time.Since(failed) < templatesFresh) {
		return list, nil
	}
	answer, err, _ := c.flight.Do("", func() (any, error) { return c.ask(ctx, from, at) })
	if err != nil {
		if known {
			return list, nil
		}
		return nil, err
	}
	return answer.([]hypervisor.Template), nil
}

// ask outlives the request that happens to be the first, for the others' sake.
// It asks nobody when another has since the caller looked.
func (c *templateCache) ask(ctx context.Context, from Templates, looked time.Time) ([]hypervisor.Template, error) {
	c.mu.Lock()
	list, at := c.list, c.at
	c.mu.Unlock()
	if at != looked {
		return list, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	list, err := from.ListTemplates(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed = time.Now()
		return nil, err
	}
	c.list, c.at = list, time.Now()
	return list, nil
}
