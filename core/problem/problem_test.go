package problem_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestEveryClassTravels(t *testing.T) {
	for _, class := range fault.Classes() {
		sent := fmt.Errorf("make coffee: %w", &fault.Error{
			Class: class, Message: "no beans", Hint: "buy some", Resource: "pot 7", RetryAfter: 1500 * time.Millisecond,
		})
		rec := httptest.NewRecorder()
		problem.Write(rec, sent)
		if rec.Code < 400 || (class != fault.Internal && rec.Code == http.StatusInternalServerError) {
			t.Errorf("%s: status %d", class, rec.Code)
		}
		got := problem.Read(rec.Result())
		if !errors.Is(got, class) {
			t.Errorf("%s came back as %s", class, fault.ClassOf(got))
		}
		var e *fault.Error
		errors.As(got, &e)
		if e.Message != "make coffee: no beans" || e.Hint != "buy some" || e.Resource != "pot 7" || e.RetryAfter != 2*time.Second {
			t.Errorf("%s came back as %+v", class, e)
		}
	}
}

func TestUnclassified(t *testing.T) {
	for err, want := range map[error]int{
		errors.New("oops"):       http.StatusInternalServerError,
		context.DeadlineExceeded: http.StatusGatewayTimeout,
		context.Canceled:         http.StatusServiceUnavailable,
	} {
		rec := httptest.NewRecorder()
		problem.Write(rec, err)
		if rec.Code != want {
			t.Errorf("%v: status %d, want %d", err, rec.Code, want)
		}
	}
}

func TestForeignAnswers(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		want   fault.Class
	}{
		{502, "<html>bad gateway</html>", fault.Unavailable},
		{404, "", fault.NotFound},
		{401, "{", fault.Denied},
		{418, `{"class":"teapot"}`, fault.Internal},
		{422, "nope", fault.Invalid},
		{413, strings.Repeat("x", 1<<20), fault.Exhausted},
	} {
		rec := httptest.NewRecorder()
		rec.WriteHeader(tc.status)
		rec.Body.WriteString(tc.body)
		if err := problem.Read(rec.Result()); !errors.Is(err, tc.want) || len(err.Error()) > 600 {
			t.Errorf("%d %.20q: %s %.100v", tc.status, tc.body, fault.ClassOf(err), err)
		}
	}
}

func TestDetails(t *testing.T) {
	lines := []string{"body.task: required", "body.x: unexpected"}
	rec := httptest.NewRecorder()
	problem.Write(rec, problem.WithDetails(fault.New(fault.Invalid, "bad request"), lines))
	if rec.Header().Get("Content-Type") != api.ProblemType {
		t.Error("media type", rec.Header())
	}
	err := problem.Read(rec.Result())
	if d := cmp.Diff(lines, problem.DetailsOf(err)); d != "" || err.Error() != "bad request" {
		t.Error(err, d)
	}
}
