package guestclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Deadlines of one attempt.
const (
	callTimeout  = 30 * time.Second
	repoTimeout  = 30 * time.Minute
	uploadFloor  = time.Minute
	slowestSpeed = 256 << 10 // bytes per second that an upload may take its time for
)

// maxReply is the greatest size of a JSON answer, in bytes.
const maxReply = 8 << 20

// Client calls the guest API. It is safe for concurrent use.
type Client struct {
	base       string
	credential secret.Value
	http       *http.Client
}

// New makes a client of the controller ("http://10.77.0.1:8844"). Connections
// never go through a proxy.
func New(controller string, credential secret.Value) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{
		base: strings.TrimRight(controller, "/"), credential: credential,
		http: &http.Client{
			Transport: &http.Transport{
				DialContext: dialer.DialContext, ResponseHeaderTimeout: 2 * time.Minute,
				ExpectContinueTimeout: 2 * time.Second, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Fetch gets the payload. A request with a token is sent without the
// Authorization header. fault.Denied: the token or credential is refused.
func (c *Client) Fetch(ctx context.Context, req guestapi.FetchRequest) (guestapi.Payload, error) {
	var p guestapi.Payload
	err := c.json(ctx, call{path: guestapi.FetchPath, anonymous: req.Token != ""}, req, &p)
	return p, err
}

// Report sends a sign of life or a result.
func (c *Client) Report(ctx context.Context, r guestapi.Report) (guestapi.ReportReply, error) {
	var reply guestapi.ReportReply
	err := c.json(ctx, call{path: guestapi.ReportPath}, r, &reply)
	return reply, err
}

// Log sends a piece of the job's log that begins at offset, and gives how many
// bytes the host has; another number than expected is no error. fault.Exhausted:
// the log's quota is used up.
func (c *Client) Log(ctx context.Context, job string, offset int64, piece []byte) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	query := url.Values{"job": {job}, "offset": {strconv.FormatInt(offset, 10)}}
	resp, err := c.do(ctx, call{path: guestapi.LogPath, query: query, kind: "application/octet-stream", body: bytes.NewReader(piece), size: int64(len(piece))})
	if err != nil {
		return 0, err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusConflict {
		if err := failure(resp); err != nil {
			return 0, err
		}
	}
	var reply guestapi.LogReply
	if err := decode(resp, &reply); err != nil {
		return 0, err
	}
	return reply.Offset, nil
}

// Repo opens the job's repository archive. The caller closes it.
func (c *Client) Repo(ctx context.Context, job string) (io.ReadCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, repoTimeout)
	resp, err := c.do(ctx, call{method: http.MethodGet, path: guestapi.RepoPath, query: url.Values{"job": {job}}})
	if err == nil {
		err = failure(resp)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &body{ReadCloser: resp.Body, cancel: cancel}, nil
}

// body ends its call's context when it is closed.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// Upload stores one artifact. fault.Exhausted: a quota is used up.
func (c *Client) Upload(ctx context.Context, u guestapi.Upload, file io.Reader) (guestapi.UploadReply, error) {
	var reply guestapi.UploadReply
	ctx, cancel := context.WithTimeout(ctx, uploadFloor+time.Duration(u.Size/slowestSpeed)*time.Second)
	defer cancel()
	query := url.Values{"job": {u.Job}, "path": {u.Path}}
	if u.Flagged != "" {
		query.Set("flagged", u.Flagged)
	}
	resp, err := c.do(ctx, call{path: guestapi.UploadPath, query: query, kind: "application/octet-stream", body: file, size: u.Size, ask: true})
	if err != nil {
		return reply, err
	}
	defer drain(resp)
	if err := failure(resp); err != nil {
		return reply, err
	}
	return reply, decode(resp, &reply)
}

// call is one request.
type call struct {
	method    string // POST unless set
	path      string
	query     url.Values
	kind      string // content type
	body      io.Reader
	size      int64
	anonymous bool
	ask       bool // whether the host wants the body at all, before it is sent
}

func (c *Client) json(ctx context.Context, k call, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	b, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	k.kind, k.body, k.size = "application/json", bytes.NewReader(b), int64(len(b))
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer drain(resp)
	if err := failure(resp); err != nil {
		return err
	}
	return decode(resp, out)
}

func (c *Client) do(ctx context.Context, k call) (*http.Response, error) {
	if k.method == "" {
		k.method = http.MethodPost
	}
	target := c.base + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	// A file of known size that is empty must not be sent in chunks.
	if k.body != nil && k.size == 0 {
		k.body = http.NoBody
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, k.body)
	if err != nil {
		return nil, fault.New(fault.Invalid, "make request: %w", err)
	}
	req.ContentLength = k.size
	if k.kind != "" {
		req.Header.Set("Content-Type", k.kind)
	}
	if k.ask {
		req.Header.Set("Expect", "100-continue")
	}
	if !k.anonymous {
		req.Header.Set("Authorization", "Bearer "+c.credential.Reveal())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "call the host: %w", err)
	}
	return resp, nil
}

func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

func decode(resp *http.Response, out any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(out); err != nil && !errors.Is(err, io.EOF) {
		return fault.New(fault.Unavailable, "read the host's answer: %w", err)
	}
	return nil
}
