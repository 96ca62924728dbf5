package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/sdk/fault"
)

const maxAnswer = 64 << 20 // bytes of a JSON answer

// call is one exchange whose answer is JSON, or none when out is nil.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, in, out any) error {
	return c.callWithin(ctx, c.timeout, method, path, q, in, out)
}

func (c *Client) callWithin(ctx context.Context, limit time.Duration, method, path string, q url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fault.New(fault.Internal, "encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, q, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		if ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) {
			return c.connectError(errors.Join(err, ctx.Err()))
		}
		return fault.New(fault.Internal, "decode answer of %s: %w", path, err)
	}
	return nil
}

// create sends a request that carries its id. When the daemon went away before
// it answered, nobody knows whether it took the request, so it is sent again
// until it is answered.
func (c *Client) create(ctx context.Context, path, look string, in any) (api.Accepted, error) {
	var out api.Accepted
	err := c.call(ctx, http.MethodPost, path, nil, in, &out)
	pace := retry{c: c}
	for err != nil && (broken(err) || !pace.since.IsZero()) {
		if pace.again(ctx, err) != nil {
			break
		}
		err = c.call(ctx, http.MethodPost, path, nil, in, &out)
	}
	if err == nil {
		pace.ok()
	}
	if err != nil && (broken(err) || errors.Is(err, fault.Timeout) || !pace.since.IsZero() && errors.Is(err, fault.Unavailable)) {
		return out, fault.New(fault.ClassOf(err), "%w", err).WithHint("it may have been accepted all the same: %s", look)
	}
	return out, err
}

// broken reports whether the connection was there and ended without an answer.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// send returns an answer below 400; anything else is an error. The caller
// closes its body.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, body io.Reader, h http.Header) (*http.Response, error) {
	req, err := c.request(ctx, method, path, q, body, h)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.connectError(err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problem.Read(resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, method, path string, q url.Values, body io.Reader, h http.Header) (*http.Request, error) {
	u := *c.base
	ref, err := url.Parse(path) // already escaped by the caller
	if err != nil {
		return nil, fault.New(fault.Invalid, "request %q: %w", path, err)
	}
	u.Path, u.RawPath = c.base.Path+ref.Path, ""
	if ref.RawPath != "" {
		u.RawPath = c.base.EscapedPath() + ref.RawPath
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fault.New(fault.Invalid, "request %q: %w", path, err)
	}
	for k, v := range h {
		req.Header[k] = v
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if !c.token.Empty() && c.socket == "" {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	return req, nil
}

// open starts a stream: Timeout holds until the answer's header is there, then
// only ctx does. Closing the body ends it.
func (c *Client) open(ctx context.Context, path string, q url.Values, h http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := c.send(ctx, http.MethodGet, path, q, nil, h)
	if !timer.Stop() && err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		err = c.connectError(context.DeadlineExceeded)
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &streamBody{ReadCloser: resp.Body, cancel: cancel}
	return resp, nil
}

type streamBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *streamBody) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// retry paces attempts to reach a daemon that is gone.
type retry struct {
	c     *Client
	since time.Time // of the first failure in a row; zero after a success
	wait  time.Duration
}

func (r *retry) ok() {
	r.since, r.wait = time.Time{}, 0
	r.c.back()
}

// again waits before the next attempt, or returns the error to give up with.
func (r *retry) again(ctx context.Context, err error) error {
	if ctx.Err() != nil || !errors.Is(err, fault.Unavailable) {
		return err
	}
	if r.since.IsZero() {
		r.since = time.Now()
	}
	if time.Since(r.since) >= r.c.patience {
		return err
	}
	if r.wait > 0 { // a connection that only broke is there again by now
		r.c.gone(r.since)
	}
	r.wait = min(max(2*r.wait, 100*time.Millisecond), 3*time.Second)
	select {
	case <-ctx.Done():
		return err
	case <-time.After(r.wait/2 + rand.N(r.wait)):
		return nil
	}
}

// gone tells who watches, once, that the daemon is away. One that failed before
// another call found it back only comes late.
func (c *Client) gone(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away || since.Before(c.backAt) {
		return
	}
	c.away = true
	if c.watch != nil {
		c.watch(true)
	}
}

func (c *Client) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.away {
		return
	}
	c.away, c.backAt = false, time.Now()
	if c.watch != nil {
		c.watch(false)
	}
}

func setInt(q url.Values, key string, n int64) {
	if n != 0 {
		q.Set(key, strconv.FormatInt(n, 10))
	}
}

func setString(q url.Values, key, s string) {
	if s != "" {
		q.Set(key, s)
	}
}
