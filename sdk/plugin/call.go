package plugin

import (
	"context"
	"strconv"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/metadata"
)

// Call says on whose behalf a plugin is called, for logs. It travels with the
// context: the host puts it there, and a driver finds it in the context of each
// call.
type Call struct {
	Request   string // this call, also when the host makes it again
	Operation string // of the host; "" for a call outside of one
	Step      string
	Attempt   int
}

type callKey struct{}

// WithCall gives a context whose calls carry c.
func WithCall(ctx context.Context, c Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallOf is the call that ctx belongs to; its zero value when there is none.
func CallOf(ctx context.Context) Call {
	c, _ := ctx.Value(callKey{}).(Call)
	return c
}

// Log is log with the call that ctx belongs to as fields.
func Log(ctx context.Context, log hclog.Logger) hclog.Logger {
	c := CallOf(ctx)
	var fields []any
	add := func(key, value string) {
		if value != "" {
			fields = append(fields, key, value)
		}
	}
	add("request", c.Request)
	add("operation", c.Operation)
	add("step", c.Step)
	if c.Attempt > 0 {
		add("attempt", strconv.Itoa(c.Attempt))
	}
	if len(fields) == 0 {
		return log
	}
	return log.With(fields...)
}

// Names of the metadata.
const (
	requestKey   = "agentlab-request"
	operationKey = "agentlab-operation"
	stepKey      = "agentlab-step"
	attemptKey   = "agentlab-attempt"
)

// Outgoing puts the call of ctx into the metadata of calls made with it.
func Outgoing(ctx context.Context) context.Context {
	c := CallOf(ctx)
	pairs := []string{requestKey, c.Request}
	if c.Operation != "" {
		pairs = append(pairs, operationKey, c.Operation, stepKey, c.Step, attemptKey, strconv.Itoa(c.Attempt))
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// incoming reads the metadata that a host sent.
func incoming(ctx context.Context) context.Context {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return ctx
	}
	get := func(key string) string {
		if v := md.Get(key); len(v) == 1 {
			return v[0]
		}
		return ""
	}
	c := Call{Request: get(requestKey), Operation: get(operationKey), Step: get(stepKey)}
	c.Attempt, _ = strconv.Atoi(get(attemptKey)) // a host that sends nonsense gets 0
	if c == (Call{}) {
		return ctx
	}
	return WithCall(ctx, c)
}
