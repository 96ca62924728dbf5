package wire

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
)

// maxText bounds each text field in bytes. Details travel in the trailer, and
// a peer drops the whole error when the trailer is too long.
const maxText = 64 << 10

// classes pairs the classes with their wire form and the gRPC code for peers
// that look no further.
var classes = []struct {
	class fault.Class
	wire  pluginv1.Class
	code  codes.Code
}{
	{fault.Invalid, pluginv1.Class_CLASS_INVALID, codes.InvalidArgument},
	{fault.NotFound, pluginv1.Class_CLASS_NOT_FOUND, codes.NotFound},
	{fault.Exists, pluginv1.Class_CLASS_EXISTS, codes.AlreadyExists},
	{fault.Conflict, pluginv1.Class_CLASS_CONFLICT, codes.Aborted},
	{fault.Locked, pluginv1.Class_CLASS_LOCKED, codes.FailedPrecondition},
	{fault.Denied, pluginv1.Class_CLASS_DENIED, codes.PermissionDenied},
	{fault.Exhausted, pluginv1.Class_CLASS_EXHAUSTED, codes.ResourceExhausted},
	{fault.Precondition, pluginv1.Class_CLASS_PRECONDITION, codes.FailedPrecondition},
	{fault.Unavailable, pluginv1.Class_CLASS_UNAVAILABLE, codes.Unavailable},
	{fault.Timeout, pluginv1.Class_CLASS_TIMEOUT, codes.DeadlineExceeded},
	{fault.Unsupported, pluginv1.Class_CLASS_UNSUPPORTED, codes.Unimplemented},
	{fault.Internal, pluginv1.Class_CLASS_INTERNAL, codes.Internal},
}

// Status turns err into an error that gRPC sends with every detail. It is nil
// for nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	class := fault.ClassOf(err)
	wireClass, code := pluginv1.Class_CLASS_INTERNAL, codes.Internal
	for _, c := range classes {
		if c.class == class {
			wireClass, code = c.wire, c.code
		}
	}
	if errors.Is(err, context.Canceled) {
		code = codes.Canceled
	}
	facts := collect(err)
	detail := &pluginv1.PluginError{
		Class:      wireClass,
		Message:    clean(messageOf(err, facts.Stderr)),
		Hint:       clean(facts.Hint),
		Resource:   clean(facts.Resource),
		Holder:     clean(facts.Holder),
		Command:    clean(facts.Command),
		ExitCode:   int32(facts.ExitCode),
		StderrTail: clean(facts.Stderr),
	}
	if facts.RetryAfter > 0 {
		detail.RetryAfter = durationpb.New(facts.RetryAfter)
	}
	st := status.New(code, detail.Message)
	if with, detailErr := st.WithDetails(detail); detailErr == nil {
		st = with
	}
	return st.Err()
}

// collect gathers each fact from the outermost error that knows it.
func collect(err error) fault.Error {
	var out fault.Error
	walk(err, func(e *fault.Error) {
		first(&out.Hint, e.Hint)
		first(&out.Resource, e.Resource)
		first(&out.Holder, e.Holder)
		if out.RetryAfter == 0 {
			out.RetryAfter = e.RetryAfter
		}
		if out.Command == "" && out.Stderr == "" {
			out.Command, out.ExitCode, out.Stderr = e.Command, e.ExitCode, e.Stderr
		}
	})
	return out
}

func walk(err error, visit func(*fault.Error)) {
	for err != nil {
		if e, ok := err.(*fault.Error); ok { //nolint:errorlint // every link is visited
			visit(e)
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				walk(e, visit)
			}
			return
		}
		err = errors.Unwrap(err)
	}
}

func first(dst *string, s string) {
	if *dst == "" {
		*dst = s
	}
}

// messageOf is err's text without the line of stderr that fault.Error appends
// to it, because the other side will append it again.
func messageOf(err error, stderr string) string {
	text := err.Error()
	if stderr == "" {
		return text
	}
	return strings.TrimSuffix(text, (&fault.Error{Message: " ", Stderr: stderr}).Error()[1:])
}

// clean makes s fit for a protobuf string: valid UTF-8 and bounded, the end
// kept because the end of an output says why it failed.
func clean(s string) string {
	if len(s) > maxText {
		s = s[len(s)-maxText:]
		for len(s) > 0 && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
