package hypervisor

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Service makes a driver ready for plugin.Serve. Capabilities follow from the
// optional interfaces that it implements.
func Service(d Driver) plugin.Service {
	s := plugin.Service{Kind: plugin.Hypervisor, Server: &server{driver: d}}
	for _, c := range capabilities {
		if c.has(d) {
			s.Capabilities = append(s.Capabilities, c.name)
		}
	}
	return s
}

type server struct {
	hypervisorv1.UnimplementedHypervisorServiceServer
	driver Driver
}

func (s *server) CheckHost(ctx context.Context, _ *hypervisorv1.CheckHostRequest) (*hypervisorv1.CheckHostResponse, error) {
	r, err := s.driver.CheckHost(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	return reportToWire(r), nil
}

func (s *server) ListTemplates(ctx context.Context, _ *hypervisorv1.ListTemplatesRequest) (*hypervisorv1.ListTemplatesResponse, error) {
	list, err := s.driver.ListTemplates(ctx)
	if err != nil {
		return nil, wire.Status(err)
	}
	out := &hypervisorv1.ListTemplatesResponse{}
	for _, t := range list {
		out.Templates = append(out.Templates, templateToWire(t))
	}
	return out, nil
}

func (s *server) ListVMs(req *hypervisorv1.ListVMsRequest, stream grpc.ServerStreamingServer[hypervisorv1.VM]) error {
	list, err := s.driver.ListVMs(stream.Context(), req.GetOwnerPrefix(), req.GetIncludeForeign())
	if err != nil {
		return wire.Status(err)
	}
	for _, v := range list {
		if err := stream.Send(vmToWire(v)); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) GetVM(ctx context.Context, req *hypervisorv1.VMRef) (*hypervisorv1.VM, error) {
	v, err := s.driver.GetVM(ctx, refFromWire(req))
	if err != nil {
		return nil, wire.Status(err)
	}
	return vmToWire(v), nil
}

func (s *server) GetStats(ctx context.Context, req *hypervisorv1.GetStatsRequest) (*hypervisorv1.GetStatsResponse, error) {
	stats, err := s.driver.GetStats(ctx, req.GetVmids())
	if err != nil {
		return nil, wire.Status(err)
	}
	out := &hypervisorv1.GetStatsResponse{Stats: map[uint32]*hypervisorv1.Stats{}}
	for vmid, one := range stats {
		out.Stats[vmid] = statsToWire(one)
	}
	return out, nil
}

func (s *server) CreateVM(req *hypervisorv1.CreateVMRequest, stream grpc.ServerStreamingServer[hypervisorv1.CreateVMUpdate]) error {
	report, end := reporter(func(p Progress) error {
		return stream.Send(&hypervisorv1.CreateVMUpdate{
			Update: &hypervisorv1.CreateVMUpdate_Progress{Progress: progressToWire(p)},
		})
	})
	v, err := s.driver.CreateVM(stream.Context(), createFromWire(req), report)
	end()
	if err != nil {
		return wire.Status(err)
	}
	return stream.Send(&hypervisorv1.CreateVMUpdate{Update: &hypervisorv1.CreateVMUpdate_Vm{Vm: vmToWire(v)}})
}

// reporter makes of send what a driver may call from any goroutine. After end it
// sends nothing more.
func reporter(send func(Progress) error) (report func(Progress), end func()) {
	var mu sync.Mutex // one sender at a time
	ended := false
	report = func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		// A caller that is gone is noticed by the driver through its context.
		_ = send(p)
	}
	end = func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
	}
	return report, end
}

func (s *server) SetPower(ctx context.Context, req *hypervisorv1.SetPowerRequest) (*hypervisorv1.VM, error) {
	target := powerFromWire(req.GetPower())
	if target == "" {
		return nil, wire.Status(fault.New(fault.Invalid, "there is no power state %s", req.GetPower()))
	}
	v, err := s.driver.SetPower(ctx, refFromWire(req.GetRef()), target, req.GetGrace().AsDuration())
	if err != nil {
		return nil, wire.Status(err)
	}
	return vmToWire(v), nil
}

func (s *server) DestroyVM(ctx context.Context, req *hypervisorv1.DestroyVMRequest) (*hypervisorv1.DestroyVMResponse, error) {
	if err := s.driver.DestroyVM(ctx, refFromWire(req.GetRef())); err != nil {
		return nil, wire.Status(err)
	}
	return &hypervisorv1.DestroyVMResponse{}, nil
}

func (s *server) GetConsole(ctx context.Context, req *hypervisorv1.VMRef) (*hypervisorv1.GetConsoleResponse, error) {
	reader, ok := s.driver.(ConsoleReader)
	if !ok {
		return nil, wire.Status(fault.New(fault.Unsupported, "this hypervisor keeps no console output"))
	}
	tail, err := reader.Console(ctx, refFromWire(req))
	if err != nil {
		return nil, wire.Status(err)
	}
	return &hypervisorv1.GetConsoleResponse{Tail: tail}, nil
}

func (s *server) WarmTemplate(
	req *hypervisorv1.WarmTemplateRequest, stream grpc.ServerStreamingServer[hypervisorv1.BuildTemplateUpdate],
) error {
	warmer, ok := s.driver.(TemplateWarmer)
	if !ok {
		return wire.Status(fault.New(fault.Unsupported, "this hypervisor starts no VM from memory"))
	}
	report, end := reporter(func(p Progress) error {
		return stream.Send(&hypervisorv1.BuildTemplateUpdate{
			Update: &hypervisorv1.BuildTemplateUpdate_Progress{Progress: progressToWire(p)},
		})
	})
	t, err := warmer.WarmTemplate(stream.Context(), warmFromWire(req), report)
	end()
	if err != nil {
		return wire.Status(err)
	}
	return stream.Send(&hypervisorv1.BuildTemplateUpdate{
		Update: &hypervisorv1.BuildTemplateUpdate_Template{Template: templateToWire(t)},
	})
}
