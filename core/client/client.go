package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// DefaultSocket is where an installed daemon listens.
const DefaultSocket = "/run/agentlab/agentlabd.sock"

// Options say where the daemon is and how patient to be.
type Options struct {
	Socket   string       // path of the daemon's Unix socket; "" is DefaultSocket
	Endpoint string       // http:// or https:// URL; wins over Socket
	Token    secret.Value // sent as Bearer to an Endpoint
	// Timeout bounds every call that is not a stream, and for a stream the time
	// to its first answer; 0 is 30 s.
	Timeout time.Duration
	// Patience is how long Events, FollowLog and the Wait calls try to reach a
	// daemon that is gone (a restart) before they give up; 0 is one minute,
	// below 0 is not at all.
	Patience time.Duration
}

// Client talks to one daemon. It is safe for concurrent use.
type Client struct {
	http     *http.Client
	base     *url.URL
	socket   string // "" when remote
	token    secret.Value
	timeout  time.Duration
	patience time.Duration
	silence  time.Duration // longest between two signs of life of an event stream
}

// New returns a client; it connects when it is used. A bad Endpoint is
// fault.Invalid.
func New(o Options) (*Client, error) {
	c := &Client{socket: o.Socket, token: o.Token, timeout: o.Timeout, patience: o.Patience, silence: longestSilence}
	if c.socket == "" {
		c.socket = DefaultSocket
	}
	if c.timeout <= 0 {
		c.timeout = 30 * time.Second
	}
	if c.patience == 0 {
		c.patience = time.Minute
	}
	c.base = &url.URL{Scheme: "http", Host: "agentlabd"}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fault.New(fault.Invalid, "endpoint %q is not a URL of this kind: http://HOST:PORT", o.Endpoint)
		}
		u.Path = strings.TrimRight(u.Path, "/")
		c.base, c.socket = u, ""
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         c.dial,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     30 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second,
			DisableCompression:  true,
		},
		// An answer that sends the token elsewhere is not from our daemon.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Local reports whether the daemon is reached by a socket of this machine.
func (c *Client) Local() bool { return c.socket != "" }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if c.socket != "" {
		return d.DialContext(ctx, "unix", c.socket)
	}
	return d.DialContext(ctx, network, addr)
}

// connectError says in words what a failed exchange means.
func (c *Client) connectError(err error) error {
	where := c.base.Redacted()
	if c.socket != "" {
		where = c.socket
	}
	if op, ok := errors.AsType[*url.Error](err); ok {
		err = op.Err // how we called is of no interest
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && c.socket != "" {
		err = op.Err // where has the address
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fault.New(fault.Unavailable, "call to the daemon was cancelled: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.Timeout, "the daemon at %s did not answer in time: %w", where, err)
	case c.socket != "" && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EACCES)):
		return fault.New(fault.Denied, "no permission to use %s: %w", where, err).
			WithHint("join the group that owns the socket (sudo usermod -aG agentlab $USER, then log in again) or use sudo")
	case c.socket != "" && errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Unavailable, "the daemon is not running: there is no %s: %w", where, err).
			WithHint("start it with systemctl start agentlabd, or name its socket with --socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		f := fault.New(fault.Unavailable, "the daemon is not running: nobody listens at %s: %w", where, err)
		if c.socket == "" {
			return f.WithHint("check the endpoint, and control_listen on the host")
		}
		return f.WithHint("start it with systemctl start agentlabd, or name its socket with --socket")
	case broken(err):
		return fault.New(fault.Unavailable, "the daemon at %s closed the connection: %w", where, err)
	}
	return fault.New(fault.Unavailable, "reach the daemon at %s: %w", where, err)
}
