package problem

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Of describes err as a Problem. Internal errors keep their text: the callers
// of these APIs are the host's operators.
func Of(err error) api.Problem {
	class := fault.ClassOf(err)
	p := api.Problem{
		Type:   "about:blank",
		Title:  class.Error(),
		Status: api.StatusOf(string(class)),
		Detail: err.Error(),
		Class:  string(class),
		Hint:   fault.HintOf(err),
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		p.Resource = e.Resource
	}
	if d, ok := errors.AsType[detailed](err); ok {
		p.Errors = d.details
	}
	return p
}

// Write answers with err's problem.
func Write(w http.ResponseWriter, err error) { WriteStatus(w, 0, err) }

// WriteStatus is Write with a status other than the class's own; 0 keeps it.
func WriteStatus(w http.ResponseWriter, status int, err error) {
	p := Of(err)
	if status != 0 {
		p.Status, p.Title = status, strings.ToLower(http.StatusText(status))
	}
	h := w.Header()
	for _, k := range []string{"Content-Length", "Content-Disposition", "Etag", "Content-Encoding"} {
		h.Del(k)
	}
	h.Set("Content-Type", api.ProblemType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if e, ok := errors.AsType[*fault.Error](err); ok && e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the reader is gone if this fails
}

// Read makes a *fault.Error of an answer with a status of 400 or more. It reads
// at most 64 KiB of the body and does not close it.
func Read(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var p api.Problem
	if json.Unmarshal(b, &p) != nil || p.Class == "" {
		p = api.Problem{Class: api.ClassOf(resp.StatusCode), Detail: strings.TrimSpace(string(b))}
		if p.Detail == "" || len(p.Detail) > 512 {
			p.Detail = "server answered " + resp.Status
		}
	}
	e := &fault.Error{Class: known(p.Class), Message: p.Detail, Hint: p.Hint, Resource: p.Resource}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	if len(p.Errors) > 0 {
		e.Err = detailed{p.Errors}
	}
	return e
}

// WithDetails attaches one line per field to e; Of and Read keep them.
func WithDetails(e *fault.Error, details []string) *fault.Error {
	c := *e
	c.Err = detailed{details}
	return &c
}

// DetailsOf gives the lines that WithDetails or Read attached, or nil.
func DetailsOf(err error) []string {
	if d, ok := errors.AsType[detailed](err); ok {
		return d.details
	}
	return nil
}

type detailed struct{ details []string }

func (d detailed) Error() string { return strings.Join(d.details, "; ") }

// known maps a class this build has never heard of to Internal.
func known(class string) fault.Class {
	for _, c := range fault.Classes() {
		if string(c) == class {
			return c
		}
	}
	return fault.Internal
}
