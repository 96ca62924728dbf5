package hypervisor

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// Client is a Driver behind a connection, with every optional interface; what
// the plugin lacks is fault.Unsupported.
type Client struct {
	rpc hypervisorv1.HypervisorServiceClient
}

var (
	_ Driver         = (*Client)(nil)
	_ ConsoleReader  = (*Client)(nil)
	_ TemplateWarmer = (*Client)(nil)
)

// NewClient speaks to the hypervisor plugin behind conn.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{hypervisorv1.NewHypervisorServiceClient(conn)}
}

// CheckHost is Driver.CheckHost.
func (c *Client) CheckHost(ctx context.Context) (HostReport, error) {
	r, err := c.rpc.CheckHost(ctx, &hypervisorv1.CheckHostRequest{})
	if err != nil {
		return HostReport{}, wire.Error(err)
	}
	return reportFromWire(r), nil
}

// ListTemplates is Driver.ListTemplates.
func (c *Client) ListTemplates(ctx context.Context) ([]Template, error) {
	r, err := c.rpc.ListTemplates(ctx, &hypervisorv1.ListTemplatesRequest{})
	if err != nil {
		return nil, wire.Error(err)
	}
	var out []Template
	for _, t := range r.GetTemplates() {
		out = append(out, templateFromWire(t))
	}
	return out, nil
}

// ListVMs is Driver.ListVMs. A list that breaks off is an error.
func (c *Client) ListVMs(ctx context.Context, ownerPrefix string, foreign bool) ([]VM, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.ListVMs(ctx, &hypervisorv1.ListVMsRequest{OwnerPrefix: ownerPrefix, IncludeForeign: foreign})
	if err != nil {
		return nil, wire.Error(err)
	}
	var out []VM
	for {
		v, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, wire.Error(err)
		}
		out = append(out, vmFromWire(v))
	}
}

// GetVM is Driver.GetVM.
func (c *Client) GetVM(ctx context.Context, ref Ref) (VM, error) {
	v, err := c.rpc.GetVM(ctx, refToWire(ref))
	if err != nil {
		return VM{}, wire.Error(err)
	}
	return vmFromWire(v), nil
}

// GetStats is Driver.GetStats.
func (c *Client) GetStats(ctx context.Context, vmids []uint32) (map[uint32]Stats, error) {
	r, err := c.rpc.GetStats(ctx, &hypervisorv1.GetStatsRequest{Vmids: vmids})
	if err != nil {
		return nil, wire.Error(err)
	}
	out := map[uint32]Stats{}
	for vmid, s := range r.GetStats() {
		out[vmid] = statsFromWire(s)
	}
	return out, nil
}

// CreateVM is Driver.CreateVM. progress may be nil, and is called from the
// caller's goroutine.
func (c *Client) CreateVM(ctx context.Context, req CreateRequest, progress func(Progress)) (VM, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.CreateVM(ctx, createToWire(req))
	if err != nil {
		return VM{}, wire.Error(err)
	}
	var vm *hypervisorv1.VM
	for {
		update, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && vm == nil:
			return VM{}, fault.New(fault.Internal, "plugin ended CreateVM without a VM")
		case errors.Is(err, io.EOF):
			return vmFromWire(vm), nil
		case err != nil:
			return VM{}, wire.Error(err)
		}
		if p := update.GetProgress(); p != nil && progress != nil {
			progress(progressFromWire(p))
		}
		if v := update.GetVm(); v != nil {
			vm = v
		}
	}
}

// SetPower is Driver.SetPower.
func (c *Client) SetPower(ctx context.Context, ref Ref, target Power, grace time.Duration) (VM, error) {
	v, err := c.rpc.SetPower(ctx, &hypervisorv1.SetPowerRequest{
		Ref: refToWire(ref), Power: powers[target], Grace: durationpb.New(grace),
	})
	if err != nil {
		return VM{}, wire.Error(err)
	}
	return vmFromWire(v), nil
}

// DestroyVM is Driver.DestroyVM.
func (c *Client) DestroyVM(ctx context.Context, ref Ref) error {
	_, err := c.rpc.DestroyVM(ctx, &hypervisorv1.DestroyVMRequest{Ref: refToWire(ref)})
	return wire.Error(err)
}

// Console is ConsoleReader.Console.
func (c *Client) Console(ctx context.Context, ref Ref) ([]byte, error) {
	r, err := c.rpc.GetConsole(ctx, refToWire(ref))
	if err != nil {
		return nil, wire.Error(err)
	}
	return r.GetTail(), nil
}

// WarmTemplate is TemplateWarmer.WarmTemplate. progress is as in CreateVM.
func (c *Client) WarmTemplate(ctx context.Context, req WarmRequest, progress func(Progress)) (Template, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.WarmTemplate(ctx, warmToWire(req))
	if err != nil {
		return Template{}, wire.Error(err)
	}
	var last *hypervisorv1.Template
	for {
		update, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && last == nil:
			return Template{}, fault.New(fault.Internal, "plugin ended WarmTemplate without a template")
		case errors.Is(err, io.EOF):
			return templateFromWire(last), nil
		case err != nil:
			return Template{}, wire.Error(err)
		}
		if p := update.GetProgress(); p != nil && progress != nil {
			progress(progressFromWire(p))
		}
		if t := update.GetTemplate(); t != nil {
			last = t
		}
	}
}
