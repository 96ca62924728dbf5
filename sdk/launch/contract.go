package launch

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Deadlines for calls that come without one.
const (
	readTimeout   = 10 * time.Second
	changeTimeout = 2 * time.Minute
	createTimeout = 5 * time.Minute
)

// level is what the contract says about calling a method again.
type level = descriptorpb.MethodOptions_IdempotencyLevel

const (
	unknown    = descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	reads      = descriptorpb.MethodOptions_NO_SIDE_EFFECTS
	idempotent = descriptorpb.MethodOptions_IDEMPOTENT
)

// contract is what the definition of a method says to its callers.
type contract struct {
	level level
	limit time.Duration // of a call without a deadline
}

var contracts sync.Map // full method → contract

// contractOf reads the contract of a method, "/package.Service/Method". One that
// changes nothing answers soon.
func contractOf(method string) contract {
	if known, ok := contracts.Load(method); ok {
		return known.(contract)
	}
	out := contract{limit: changeTimeout}
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
		opts, _ := d.Options().(*descriptorpb.MethodOptions)
		out.level = opts.GetIdempotencyLevel()
	}
	if out.level == reads {
		out.limit = readTimeout
	}
	if strings.HasSuffix(method, "/CreateVM") {
		out.limit = createTimeout
	}
	contracts.Store(method, out)
	return out
}

func (c contract) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.limit)
}

// outcome is what an attempt came to, as far as another may follow.
type outcome int

const (
	answered    outcome = iota // well, or with an error of another class
	unavailable                // the plugin answered that it is unavailable
	lost                       // no answer: the process ended, or its connection
)

// mostAttempts is how often a call is made at most, by what came of the last
// attempt; what is not listed is not made again. A change that the plugin
// answered is its caller's to repeat: callers have their own patience, and say
// so to people. A call that ends its process twice is not made a third time.
var mostAttempts = map[outcome]map[level]int{
	unavailable: {reads: 3},
	lost:        {reads: 2, idempotent: 2},
}

// again reports whether attempt number n may be followed by another.
func (c contract) again(o outcome, n int) bool { return n < mostAttempts[o][c.level] }
