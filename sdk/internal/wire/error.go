package wire

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
)

// Error turns what a gRPC call returned into an error with a class. Details of
// a plugin are taken as they are; without them the class follows from the gRPC
// code. It is nil for nil, and never panics whatever the peer sent.
func Error(err error) error {
	if err == nil {
		return nil
	}
	var classified *fault.Error
	if errors.As(err, &classified) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return &fault.Error{Class: fault.ClassOf(err), Message: err.Error(), Err: err}
	}
	for _, d := range st.Details() {
		if detail, ok := d.(*pluginv1.PluginError); ok {
			return fromDetail(detail, st)
		}
	}
	return &fault.Error{Class: classOfCode(st.Code()), Message: st.Message(), Err: causeOf(st.Code())}
}

func fromDetail(d *pluginv1.PluginError, st *status.Status) *fault.Error {
	e := &fault.Error{
		Class:    classOfCode(st.Code()),
		Message:  d.GetMessage(),
		Hint:     d.GetHint(),
		Resource: d.GetResource(),
		Holder:   d.GetHolder(),
		Command:  d.GetCommand(),
		ExitCode: int(d.GetExitCode()),
		Stderr:   d.GetStderrTail(),
		Err:      causeOf(st.Code()),
	}
	for _, c := range classes {
		if c.wire == d.GetClass() {
			e.Class = c.class
		}
	}
	if e.Message == "" {
		e.Message = st.Message()
	}
	if after := d.GetRetryAfter(); after.IsValid() {
		e.RetryAfter = max(after.AsDuration(), time.Duration(0))
	}
	return e
}

// causeOf keeps errors.Is working for the two errors of package context.
func causeOf(c codes.Code) error {
	switch c {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	}
	return nil
}

func classOfCode(c codes.Code) fault.Class {
	switch c {
	case codes.Canceled:
		return fault.Unavailable
	case codes.Unauthenticated:
		return fault.Denied
	case codes.OutOfRange:
		return fault.Invalid
	case codes.FailedPrecondition: // shared with Locked, which details tell apart
		return fault.Precondition
	}
	for _, known := range classes {
		if known.code == c {
			return known.class
		}
	}
	return fault.Internal
}
