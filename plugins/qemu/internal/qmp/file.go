package qmp

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Give hands QEMU an open file, which later commands call by name.
func (c *Client) Give(ctx context.Context, name string, f *os.File) error {
	stop := c.bound(ctx)
	defer stop()
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return fault.New(fault.Internal, "monitor is no unix socket")
	}
	// The descriptor waits at QEMU's end for the command that names it. A byte
	// has to carry it; a blank means nothing between two commands.
	if _, _, err := conn.WriteMsgUnix([]byte(" "), unix.UnixRights(int(f.Fd())), nil); err != nil {
		return fault.New(fault.Unavailable, "hand a file to the monitor: %w", err)
	}
	return c.Execute(ctx, "getfd", map[string]any{"fdname": name}, nil)
}

// Migrated gives nil once QEMU says that its migration is complete, and an error
// when it has failed. done is false while it goes on.
func (c *Client) Migrated(ctx context.Context) (done bool, err error) {
	var out struct {
		Status string `json:"status"`
		Desc   string `json:"error-desc"`
	}
	if err := c.Execute(ctx, "query-migrate", nil, &out); err != nil {
		return false, err
	}
	switch out.Status {
	case "completed":
		return true, nil
	case "failed", "cancelled":
		return true, fault.New(fault.Internal, "migration %s: %s", out.Status, out.Desc)
	}
	return false, nil
}
