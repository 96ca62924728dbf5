package driver

import (
	"context"
	"sync"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

// channels are the ways into guests that are in use. QEMU lets one client in and
// keeps others waiting, so the callers of this process share one: a program that
// runs for long must not hold up the question whether a disk is in use.
type channels struct {
	mu   sync.Mutex // mu guards: open
	open map[procfs.Identity]*line
}

// line is to one program: when another has taken its place it is of no use.
type line struct {
	host  *channel.Host
	users int
}

// join gives the way to the guest of a program whose socket is in dir.
func (c *channels) join(ctx context.Context, dir string, id procfs.Identity) (h *channel.Host, leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.open[id]
	if l == nil {
		short, cancel := context.WithTimeout(ctx, monitorTimeout)
		defer cancel()
		conn, err := qmp.Connect(short, dir, channelName)
		if err != nil {
			return nil, nil, fault.New(fault.Unavailable, "connect to the guest: %w", err)
		}
		if c.open == nil {
			c.open = map[procfs.Identity]*line{}
		}
		l = &line{host: channel.New(conn)}
		c.open[id] = l
	}
	l.users++
	return l.host, func() { c.leave(id) }, nil
}

// leave hangs up after the last.
func (c *channels) leave(id procfs.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.open[id]
	if l.users--; l.users == 0 {
		delete(c.open, id)
		_ = l.host.Close()
	}
}
