package guestclient

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// failure turns an answer other than 2xx into an error and closes it.
func failure(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	defer drain(resp)
	var problem struct {
		Detail string `json:"detail"`
		Title  string `json:"title"`
	}
	_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&problem)
	text := problem.Detail
	if text == "" {
		text = problem.Title
	}
	if text == "" {
		text = http.StatusText(resp.StatusCode)
	}
	e := fault.New(classOf(resp.StatusCode), "the host answered %d: %s", resp.StatusCode, text)
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.Class = fault.Unavailable // whatever it was, the host says that it passes
		e.RetryAfter = time.Duration(min(s, 60)) * time.Second
	}
	return e
}

func classOf(status int) fault.Class {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Denied
	case http.StatusNotFound, http.StatusGone:
		return fault.NotFound
	case http.StatusConflict:
		return fault.Conflict
	case http.StatusPreconditionFailed:
		return fault.Precondition
	case http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage:
		return fault.Exhausted
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusLocked:
		return fault.Unavailable
	case http.StatusNotImplemented:
		return fault.Unsupported
	}
	if status >= 500 {
		return fault.Unavailable
	}
	return fault.Invalid
}

// Lasting reports whether trying the call again cannot help.
func Lasting(err error) bool {
	switch fault.ClassOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Internal:
		return false
	}
	return true
}

// Waits between attempts.
const (
	firstWait   = 200 * time.Millisecond
	longestWait = 5 * time.Second
)

// Retry calls f until it succeeds, fails for good (see Lasting) or ctx ends,
// whose cause it then returns together with the last error. onFailure is told
// of each failed attempt that will be repeated, and may be nil.
func Retry(ctx context.Context, onFailure func(attempt int, err error), f func(context.Context) error) error {
	wait := firstWait
	for attempt := 1; ; attempt++ {
		err := f(ctx)
		if err == nil || Lasting(err) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if onFailure != nil {
			onFailure(attempt, err)
		}
		pause := wait/2 + rand.N(wait/2+1)
		var classified *fault.Error
		if errors.As(err, &classified) && classified.RetryAfter > pause {
			pause = classified.RetryAfter
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
		wait = min(2*wait, longestWait)
	}
}
