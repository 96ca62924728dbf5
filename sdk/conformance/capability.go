package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// ability is a capability of a contract and the calls that it stands for.
type ability struct {
	kind  plugin.Kind
	name  string
	calls []optional
}

// optional is a call that a plugin may lack. A safe one may be made with an
// empty request.
type optional struct {
	name         string
	stream, both bool // answers come as a stream; requests too
	safe         bool
}

var abilities = []ability{
	{plugin.Hypervisor, "snapshot", []optional{
		{name: "CreateSnapshot"}, {name: "RollbackSnapshot"}, {name: "DeleteSnapshot"}, {name: "ListSnapshots", safe: true},
	}},
	{plugin.Hypervisor, "volumes", []optional{
		{name: "CreateVolume"}, {name: "GetVolume", safe: true}, {name: "AttachVolume"}, {name: "DetachVolume"}, {name: "DeleteVolume"},
	}},
	{plugin.Hypervisor, "volume_snapshot", []optional{{name: "SnapshotVolume"}}},
	{plugin.Hypervisor, "volume_clone", nil},
	{plugin.Hypervisor, "guest_exec", []optional{{name: "Exec", stream: true, both: true}}},
	{plugin.Hypervisor, "console", []optional{{name: "GetConsole", safe: true}}},
	{plugin.Hypervisor, "template_build", []optional{{name: "BuildTemplate", stream: true}}},
	{plugin.Hypervisor, "memory_template", []optional{{name: "WarmTemplate", stream: true}}},
	{plugin.Network, "counters", []optional{{name: "Activity", safe: true}}},
	{plugin.Network, "flows", []optional{{name: "ListFlows", stream: true, safe: true}}},
	{plugin.Network, "flow_kill", []optional{{name: "KillFlows"}}},
	{plugin.Network, "denied_events", []optional{{name: "WatchDenied", stream: true, safe: true}}},
	{plugin.Secrets, "update", []optional{{name: "Update"}}},
	{plugin.Secrets, "rewrap", []optional{{name: "Rewrap"}}},
	{plugin.Exposure, "node_info", []optional{{name: "NodeInfo", safe: true}}},
	{plugin.Exposure, "routes", []optional{{name: "AdvertiseRoute"}}},
}

// capabilitiesOf lists what a kind's contract knows.
func capabilitiesOf(k plugin.Kind) (out []string) {
	for _, a := range abilities {
		if a.kind == k {
			out = append(out, a.name)
		}
	}
	return out
}

// able is the state of one check.
type able struct {
	Binary
	conn         caller
	capabilities []string
}

// Capabilities checks that a plugin can what it says, and says no to the rest.
func Capabilities(b Binary) []Check {
	return bind("", capabilityRules, func(ctx context.Context, _ Rule, fn func(*able, context.Context) error) error {
		p, capabilities, done, err := b.start(ctx)
		if err != nil {
			return err
		}
		defer done()
		return fn(&able{b, p.Conn(), capabilities}, ctx)
	})
}

var capabilityRules = []ruled[*able]{
	reads("capability.declared", 2, "makes the calls of each capability that it says it has, where they change nothing",
		"An RPC that names a capability is optional: without it the plugin answers UNIMPLEMENTED.", (*able).declared),
	changes("capability.undeclared", 2, "makes the calls of each capability that it does not say it has, empty",
		"An RPC that names a capability is optional: without it the plugin answers UNIMPLEMENTED.", (*able).undeclared),
}

func (a *able) declared(ctx context.Context) error {
	checked := 0
	for _, one := range a.of(true) {
		for _, call := range one.calls {
			if !call.safe {
				continue
			}
			checked++
			if code := a.try(ctx, call); code == codes.Unimplemented || code == codes.Internal || code == codes.Unknown {
				return saw("it says that it can %q, and %s answers %s", one.name, call.name, code).want("that the call works")
			}
		}
	}
	if checked == 0 {
		return fmt.Errorf("%w: a capability with a call that changes nothing", ErrSkipped)
	}
	return nil
}

func (a *able) undeclared(ctx context.Context) error {
	for _, one := range a.of(false) {
		for _, call := range one.calls {
			if code := a.try(ctx, call); code != codes.Unimplemented {
				return saw("it does not say that it can %q, and %s answers %s", one.name, call.name, code).want("UNIMPLEMENTED")
			}
		}
	}
	return nil
}

// of lists the kind's capabilities that are declared, or those that are not.
func (a *able) of(declared bool) (out []ability) {
	for _, one := range abilities {
		if one.kind == a.Kind && slices.Contains(a.capabilities, one.name) == declared {
			out = append(out, one)
		}
	}
	return out
}

// try makes a call with an empty request.
func (a *able) try(ctx context.Context, call optional) codes.Code {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	method := "/" + a.Kind.ServiceName() + "/" + call.name
	if !call.stream {
		return status.Code(a.conn.Invoke(ctx, method, []byte{}, nil, grpc.ForceCodec(noise{})))
	}
	desc := &grpc.StreamDesc{StreamName: call.name, ServerStreams: true, ClientStreams: call.both}
	stream, err := a.conn.NewStream(ctx, desc, method, grpc.ForceCodec(noise{}))
	if err != nil {
		return status.Code(err)
	}
	if err := errors.Join(stream.SendMsg([]byte{}), stream.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return status.Code(err)
	}
	if err = stream.RecvMsg(nil); errors.Is(err, io.EOF) {
		err = nil
	}
	return status.Code(err)
}
