package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	callTimeout  = 30 * time.Second
	maxAnswer    = 4 << 20
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 2 * time.Second
)

// errRefused is an answer that no repeat will change.
var errRefused = errors.New("the controller refuses")

// newClient speaks from the machine's own address only.
func newClient(from netip.Addr) *http.Client {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: callTimeout}
	return &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 2, IdleConnTimeout: 5 * time.Second},
		Timeout:   callTimeout,
	}
}

// request is one call of the guest API.
type request struct {
	op     string // for faults
	method string
	path   string
	query  url.Values
	body   []byte
	kind   string // content type of body
	accept []int  // statuses beside 2xx that need no repeat
}

// call makes one request. The answer is given for any status; err is set when
// there is none, or errRefused.
func (g *guest) call(ctx context.Context, r request) (int, []byte, error) {
	subject := strconv.FormatUint(uint64(g.vm.VMID), 10)
	if err := g.World.Reach(ctx, r.op, subject); err != nil {
		return 0, nil, err
	}
	target := g.boot.Controller + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", r.kind)
	}
	if r.path != fetchPath || g.disk.Bound {
		req.Header.Set("Authorization", "Bearer "+g.disk.Credential)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, err
	}
	if err := g.World.Answered(ctx, r.op, subject); err != nil {
		return 0, nil, err
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone,
		http.StatusBadRequest, http.StatusUnprocessableEntity:
		return resp.StatusCode, answer, fmt.Errorf("%w %s: %s", errRefused, r.path, resp.Status)
	}
	return resp.StatusCode, answer, nil
}

// insist repeats a call until it is answered well, refused, or ctx ends.
func (g *guest) insist(ctx context.Context, r request) (int, []byte, error) {
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		status, answer, err := g.call(ctx, r)
		if errors.Is(err, errRefused) {
			return status, answer, err
		}
		if err == nil && (status/100 == 2 || slices.Contains(r.accept, status)) {
			return status, answer, nil
		}
		if err := pause(ctx, wait); err != nil {
			return 0, nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func (g *guest) fetch(ctx context.Context) (payload, error) {
	req := fetchRequest{HostKey: g.disk.HostKey, BootID: g.disk.BootID, Runner: "sim"}
	if !g.disk.Bound {
		req.Token, req.Credential = g.boot.Token, g.disk.Credential
	}
	body, err := json.Marshal(req)
	if err != nil {
		return payload{}, fmt.Errorf("encode request: %w", err)
	}
	_, answer, err := g.insist(ctx, request{
		op: "guest.fetch", method: http.MethodPost, path: fetchPath, body: body, kind: "application/json",
	})
	if err != nil {
		return payload{}, err
	}
	var p payload
	if err := json.Unmarshal(answer, &p); err != nil {
		return payload{}, fmt.Errorf("%w: payload cannot be read", errRefused)
	}
	return p, nil
}

// op names a report for faults: "guest.report.idle" without a job, else after
// the stage or the kind.
func (r report) op() string {
	switch {
	case r.Job == "":
		return "guest.report.idle"
	case r.Kind == stage:
		return "guest.report." + r.Stage
	}
	return "guest.report." + r.Kind
}

// tell sends a report, again and again if it must arrive.
func (g *guest) tell(ctx context.Context, r report, mustArrive bool) (reportReply, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return reportReply{}, fmt.Errorf("encode report: %w", err)
	}
	send := g.call
	if mustArrive {
		send = g.insist
	}
	_, answer, err := send(ctx, request{
		op: r.op(), method: http.MethodPost, path: reportPath, body: body, kind: "application/json",
	})
	if err != nil {
		return reportReply{}, err
	}
	var reply reportReply
	_ = json.Unmarshal(answer, &reply) // an answer without words asks for nothing
	return reply, nil
}
