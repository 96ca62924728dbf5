package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// maxReply bounds one line: the console ring of 64 KiB in base64 fits well.
	maxReply  = 1 << 20
	dialRetry = 10 * time.Millisecond
)

// Client is a connection. QEMU serves one at a time, so keep it short.
type Client struct {
	conn    net.Conn
	scanner *bufio.Scanner
}

// CommandError is QEMU's own refusal of a command.
type CommandError struct {
	Command string
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

// Error gives QEMU's words.
func (e *CommandError) Error() string { return e.Command + ": " + e.Desc }

// Dial connects and completes the handshake before ctx ends. fault.Unavailable
// when nobody answers.
func Dial(ctx context.Context, dir, name string) (*Client, error) {
	conn, err := Connect(ctx, dir, name)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "connect to monitor: %w", err)
	}
	c := &Client{conn: conn, scanner: bufio.NewScanner(conn)}
	c.scanner.Buffer(make([]byte, 0, 4096), maxReply)
	if err := c.handshake(ctx); err != nil {
		c.Close()
		return nil, fault.New(fault.Unavailable, "monitor handshake: %w", err)
	}
	return c, nil
}

// Connect opens the socket name in the folder dir. The way through /proc keeps
// the address short however long dir is.
func Connect(ctx context.Context, dir, name string) (net.Conn, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open folder of socket: %w", err)
	}
	defer unix.Close(fd)
	return dial(ctx, "/proc/self/fd/"+strconv.Itoa(fd)+"/"+name)
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		// EAGAIN: the queue of waiting clients is full for the moment.
		if err == nil || !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(dialRetry):
		}
	}
}

// Close hangs up.
func (c *Client) Close() { _ = c.conn.Close() }

func (c *Client) handshake(ctx context.Context) error {
	stop := c.bound(ctx)
	defer stop()
	if _, err := c.read(ctx); err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	return c.execute(ctx, "qmp_capabilities", nil, nil)
}

// Execute runs one command and decodes what it returns into result, unless that
// is nil. Errors: CommandError for a refusal, fault.Timeout, fault.Unavailable
// when QEMU went away.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	stop := c.bound(ctx)
	defer stop()
	err := c.execute(ctx, command, args, result)
	var refused *CommandError
	switch {
	case err == nil || errors.As(err, &refused):
		return err
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return fault.New(fault.Timeout, "monitor command %s: %w", command, err)
	}
	return fault.New(fault.Unavailable, "monitor command %s: %w", command, err)
}

// bound makes every wait on the connection end with ctx.
func (c *Client) bound(ctx context.Context) (stop func() bool) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.conn.SetDeadline(deadline)
	}
	return context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
}

type reply struct {
	Return json.RawMessage `json:"return"`
	Error  *CommandError   `json:"error"`
	Event  string          `json:"event"`
	QMP    json.RawMessage `json:"QMP"`
}

func (c *Client) execute(ctx context.Context, command string, args, result any) error {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	raw, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(append(raw, '\n')); err != nil {
		return err
	}
	for {
		r, err := c.read(ctx)
		switch {
		case err != nil:
			return err
		case r.Error != nil:
			r.Error.Command = command
			return r.Error
		case r.Return == nil: // an event; nobody here waits for one
			continue
		case result == nil:
			return nil
		}
		return json.Unmarshal(r.Return, result)
	}
}

func (c *Client) read(ctx context.Context) (reply, error) {
	var r reply
	if !c.scanner.Scan() {
		if err := c.scanner.Err(); err != nil {
			return r, err
		}
		return r, errors.New("qemu closed the connection")
	}
	if err := json.Unmarshal(c.scanner.Bytes(), &r); err != nil {
		return r, fmt.Errorf("decode reply: %w", err)
	}
	return r, ctx.Err()
}

// Status asks for the run state: running, paused, prelaunch, io-error, …
func (c *Client) Status(ctx context.Context) (string, error) {
	var out struct {
		Status string `json:"status"`
	}
	err := c.Execute(ctx, "query-status", nil, &out)
	return out.Status, err
}
