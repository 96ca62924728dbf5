package client

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Where daemons listen unless told otherwise: an installed one, and agentlabd
// --dev.
const (
	DefaultSocket = "/run/agentlab/agentlabd.sock"
	DevSocket     = "/run/agentlab-dev/agentlabd.sock"
)

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

	mu sync.Mutex
	// mu guards:
	away   bool // and waited for
	backAt time.Time
	watch  func(away bool)
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

// Watch has f called when calls begin to wait for a daemon that is gone, and when
// it is back. f must not call the client.
func (c *Client) Watch(f func(away bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = f
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
