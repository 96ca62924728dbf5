package client

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/sdk/fault"
)

// CreateSandbox asks for a sandbox without a job and returns at once; follow
// the operation with WaitOperation or Events. A lost answer makes no second
// sandbox.
func (c *Client) CreateSandbox(ctx context.Context, req api.SandboxCreate) (api.Accepted, error) {
	req.ID = cmp.Or(req.ID, lab.NewID("sbx"))
	return c.create(ctx, "/v1/sandboxes", "agentlab sandbox show "+req.ID, req)
}

// SandboxQuery narrows Sandboxes; the zero value lists all that live.
type SandboxQuery struct {
	All    bool     // destroyed ones too
	States []string // "READY", …; empty is every state
}

// Sandboxes lists sandboxes.
func (c *Client) Sandboxes(ctx context.Context, q SandboxQuery) ([]api.Sandbox, error) {
	v := url.Values{}
	if q.All {
		v.Set("all", "true")
	}
	for _, s := range q.States {
		v.Add("state", s)
	}
	return list[api.Sandbox](ctx, c, "/v1/sandboxes", v)
}

// Sandbox finds one by VMID, name or id.
func (c *Client) Sandbox(ctx context.Context, ref string) (api.Sandbox, error) {
	return get[api.Sandbox](ctx, c, "/v1/sandboxes/"+url.PathEscape(ref), nil)
}

// DestroySandbox asks for its end and returns at once. Asking again answers the
// operation that is under way.
func (c *Client) DestroySandbox(ctx context.Context, ref string) (api.Accepted, error) {
	var out api.Accepted
	err := c.call(ctx, http.MethodDelete, "/v1/sandboxes/"+url.PathEscape(ref), nil, nil, &out)
	return out, err
}

// SandboxEvents gives the newest events of a sandbox, oldest first; tail 0 is
// 100, at most 1000.
func (c *Client) SandboxEvents(ctx context.Context, ref string, tail int) ([]api.Event, error) {
	v := url.Values{}
	setInt(v, "tail", int64(tail))
	return list[api.Event](ctx, c, "/v1/sandboxes/"+url.PathEscape(ref)+"/events", v)
}

// Console opens the newest of what the guest printed. It is untrusted text. The
// caller closes it.
func (c *Client) Console(ctx context.Context, ref string) (io.ReadCloser, error) {
	return c.download(ctx, "/v1/sandboxes/"+url.PathEscape(ref)+"/console", nil)
}

// DialSandbox connects to a TCP port of the sandbox through the daemon, for
// hosts that cannot reach it themselves. The connection's CloseWrite ends one
// direction only.
func (c *Client) DialSandbox(ctx context.Context, ref string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	path := "/v1/sandboxes/" + url.PathEscape(ref) + "/stream"
	req, err := c.request(ctx, http.MethodGet, path, url.Values{"port": {fmt.Sprint(port)}}, nil, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {api.StreamProtocol},
	})
	if err != nil {
		return nil, err
	}
	conn, err := c.dialRaw(ctx)
	if err != nil {
		return nil, c.connectError(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	upgraded, err := c.upgrade(conn, req)
	if !stop() { // the deadline that cut it also cuts what would follow
		err = c.connectError(ctx.Err())
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return upgraded, nil
}

func (c *Client) dialRaw(ctx context.Context) (net.Conn, error) {
	host := c.base.Host
	if c.base.Port() == "" {
		host = net.JoinHostPort(c.base.Hostname(), map[string]string{"http": "80", "https": "443"}[c.base.Scheme])
	}
	conn, err := c.dial(ctx, "tcp", host)
	if err != nil || c.base.Scheme != "https" || c.socket != "" {
		return conn, err
	}
	t := tls.Client(conn, &tls.Config{ServerName: c.base.Hostname()})
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return t, nil
}

func (c *Client) upgrade(conn net.Conn, req *http.Request) (net.Conn, error) {
	if err := req.Write(conn); err != nil {
		return nil, c.connectError(err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, c.connectError(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, problem.Read(resp)
	}
	if !strings.EqualFold(resp.Header.Get("Upgrade"), api.StreamProtocol) {
		return nil, fault.New(fault.Unsupported, "the daemon switched to %q", resp.Header.Get("Upgrade"))
	}
	return &streamConn{Conn: conn, r: br}, nil
}

// streamConn reads what came together with the answer's header first.
type streamConn struct {
	net.Conn
	r *bufio.Reader
}

func (s *streamConn) Read(p []byte) (int, error) { return s.r.Read(p) }

// CloseWrite tells the other end that nothing more comes.
func (s *streamConn) CloseWrite() error {
	if h, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}
