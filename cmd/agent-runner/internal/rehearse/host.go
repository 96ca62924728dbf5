package rehearse

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/guestapi"
)

// host plays the host of a sandbox without a job, on the loopback. It is no server
// of net/http: that would be a good part of this program.
type host struct {
	listener net.Listener
	serving  sync.WaitGroup
	beats    chan struct{} // a token for each sign of life
}

func newHost() (*host, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("rehearse calls of the host: %w", err)
	}
	h := &host{listener: ln, beats: make(chan struct{}, 1)}
	h.serving.Go(h.accept)
	return h, nil
}

func (h *host) url() string { return "http://" + h.listener.Addr().String() }

// close returns when nobody is answered any more.
func (h *host) close() {
	_ = h.listener.Close()
	h.serving.Wait()
}

func (h *host) accept() {
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(timeout))
		h.serving.Go(func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			for h.answer(r, conn) == nil {
			}
		})
	}
}

func (h *host) answer(r *bufio.Reader, w io.Writer) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return err
	}
	// Who is told to fetch anew has read the answer when it does.
	var reply any = guestapi.ReportReply{Fetch: true}
	if req.URL.Path == guestapi.FetchPath {
		reply = guestapi.Payload{Sandbox: "rehearsal"}
	}
	body, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	resp := http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
	if req.URL.Path == guestapi.ReportPath {
		select {
		case h.beats <- struct{}{}:
		default:
		}
	}
	return resp.Write(w)
}

// meet has the guest in there serve until it has shown its host that it lives and
// has heard the answer.
func (h *host) meet(ctx context.Context, there layout.Layout, serve Serve) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, there, hclog.NewNullLogger()) }()
	for range 2 {
		select {
		case <-h.beats:
		case err := <-served:
			return fmt.Errorf("rehearse calls of the host: %w", errors.Join(errors.New("the guest gave up"), err))
		}
	}
	cancel()
	if err := <-served; err != nil {
		return fmt.Errorf("rehearse calls of the host: %w", err)
	}
	return nil
}
