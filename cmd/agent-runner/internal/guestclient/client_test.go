package guestclient_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

func TestAuthorization(t *testing.T) {
	var got string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		io.WriteString(w, "{}")
	}))
	defer srv.Close()
	c := guestclient.New(srv.URL, secret.New("cred"))
	defer c.Close()
	if _, err := c.Fetch(t.Context(), guestapi.FetchRequest{Token: "tok"}); err != nil || got != "" {
		t.Errorf("with a token: header %q, %v", got, err)
	}
	if _, err := c.Fetch(t.Context(), guestapi.FetchRequest{}); err != nil || got != "Bearer cred" {
		t.Errorf("without a token: header %q, %v", got, err)
	}
}

func TestAnswers(t *testing.T) {
	status, body := 0, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://169.254.169.254/")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	defer srv.Close()
	c := guestclient.New(srv.URL, secret.Value{})
	defer c.Close()
	for _, k := range []struct {
		status int
		class  fault.Class
		last   bool
	}{
		{403, fault.Denied, true},
		{401, fault.Denied, true},
		{404, fault.NotFound, true},
		{412, fault.Precondition, true},
		{413, fault.Exhausted, true},
		{507, fault.Exhausted, true},
		{429, fault.Unavailable, false},
		{500, fault.Unavailable, false},
		{503, fault.Unavailable, false},
		{302, fault.Invalid, true},
		{400, fault.Invalid, true},
	} {
		status, body = k.status, `{"detail":"because"}`
		_, err := c.Report(t.Context(), guestapi.Report{})
		if !errors.Is(err, k.class) || guestclient.Lasting(err) != k.last || !strings.Contains(err.Error(), "because") {
			t.Errorf("%d gives %v, lasting %v", k.status, err, guestclient.Lasting(err))
		}
	}
	status, body = 409, `{"offset":7}`
	if at, err := c.Log(t.Context(), "j", 3, []byte("x")); err != nil || at != 7 {
		t.Errorf("log at another offset: %d, %v", at, err)
	}
	srv.Close()
	if _, err := c.Report(t.Context(), guestapi.Report{}); !errors.Is(err, fault.Unavailable) || guestclient.Lasting(err) {
		t.Errorf("no host: %v", err)
	}
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, started := 0, time.Now()
		err := guestclient.Retry(t.Context(), nil, func(context.Context) error {
			if calls++; calls < 100 {
				return fault.New(fault.Unavailable, "down")
			}
			return nil
		})
		if took := time.Since(started); err != nil || took < 3*time.Minute || took > 9*time.Minute {
			t.Errorf("%d calls in %v: %v", calls, took, err)
		}
		calls = 0
		err = guestclient.Retry(t.Context(), nil, func(context.Context) error {
			calls++
			return fault.New(fault.Denied, "no")
		})
		if !errors.Is(err, fault.Denied) || calls != 1 {
			t.Errorf("denied: %d calls, %v", calls, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = guestclient.Retry(ctx, nil, func(context.Context) error { return fault.New(fault.Unavailable, "down") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at the deadline: %v", err)
		}
	})
}

// A host that refuses a large file without reading it must be understood, not
// taken for a broken connection.
func TestRefusedUpload(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}))
	defer srv.Close()
	c := guestclient.New(srv.URL, secret.Value{})
	defer c.Close()
	const size = 64 << 20
	for range 20 {
		_, err := c.Upload(t.Context(), guestapi.Upload{Job: "j", Path: "f", Size: size}, io.LimitReader(zeros{}, size))
		if !errors.Is(err, fault.Exhausted) {
			t.Fatalf("error %v", err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
