package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// HypervisorOptions fit the suite to a host.
type HypervisorOptions struct {
	// Template is one that must be there, by name or VMID. "": the first that is
	// whole, and where there is none most checks are skipped.
	Template    string
	MemoryBytes uint64 // of each VM, 0: 256 MiB
	// NIC makes what a VM's network card needs on the host, as the network
	// plugin would, and names it. nil: a card with nothing behind it.
	NIC     func(ctx context.Context, vmid uint32, iface string) (hypervisor.NIC, error)
	Effects Effects
}

// Hypervisor gives the rules of the hypervisor contract.
func Hypervisor(open Open[hypervisor.Driver], opts HypervisorOptions) []Check {
	s := &hypervisorSuite{open: open, opts: opts, run: unique()}
	return []Check{
		s.check("check host", (*machines).checkHost),
		s.check("templates", (*machines).templates),
		s.check("absent vm", (*machines).absent),
		s.check("create", (*machines).create),
		s.check("create twice", (*machines).createTwice),
		s.check("create at the same time", (*machines).createAtOnce),
		s.check("create unknown template", (*machines).createUnknown),
		s.check("create given up", (*machines).createGivenUp),
		s.check("vmid of somebody else", (*machines).taken),
		s.check("list", (*machines).list),
		s.check("power", (*machines).power),
		s.check("pause", (*machines).pause),
		s.check("shutdown", (*machines).shutdown),
		s.check("unsupported power", (*machines).hibernate),
		s.check("owner is compared", (*machines).foreign),
		s.check("destroy", (*machines).destroy),
		s.check("stats", (*machines).stats),
		s.check("console", (*machines).console),
		s.check("survives its process", (*machines).survives),
	}
}

type hypervisorSuite struct {
	open Open[hypervisor.Driver]
	opts HypervisorOptions
	run  string
	next atomic.Uint32
}

// machines is the state of one check.
type machines struct {
	*hypervisorSuite
	hypervisor.Driver
	process *opened[hypervisor.Driver]
	host    hypervisor.HostReport
	mu      sync.Mutex
	// mu guards:
	made []hypervisor.Ref
}

func (s *hypervisorSuite) check(name string, fn func(*machines, context.Context) error) Check {
	return Check{Name: name, Run: func(ctx context.Context) (err error) {
		process, err := s.open.first(ctx)
		if err != nil {
			return err
		}
		defer process.close()
		m := &machines{hypervisorSuite: s, Driver: process.driver, process: process}
		if m.host, err = m.CheckHost(ctx); err != nil {
			return fmt.Errorf("check host: %w", err)
		}
		defer func() { err = errors.Join(err, m.cleanUp(ctx)) }()
		return fn(m, ctx)
	}}
}

func (m *machines) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	var errs []error
	for _, ref := range m.made {
		if err := m.DestroyVM(ctx, ref); err != nil {
			errs = append(errs, fmt.Errorf("clean up vm %d: %w", ref.VMID, err))
		}
	}
	return errors.Join(errs...)
}

func (m *machines) prefix() string { return "agentlab:conformance-" + m.run + "/" }

// request asks for a VM that does not exist. It is destroyed after the check.
func (m *machines) request(ctx context.Context) (hypervisor.CreateRequest, error) {
	all, err := m.ListVMs(ctx, "", true)
	if err != nil {
		return hypervisor.CreateRequest{}, fmt.Errorf("list vms: %w", err)
	}
	vmid := m.host.VMIDLast - m.next.Add(1) + 1
	for slices.ContainsFunc(all, func(v hypervisor.VM) bool { return v.Ref.VMID == vmid }) {
		vmid = m.host.VMIDLast - m.next.Add(1) + 1
	}
	if vmid < m.host.VMIDFirst {
		return hypervisor.CreateRequest{}, fmt.Errorf("%w: no vmid is free", ErrSkipped)
	}
	template, err := m.template(ctx)
	if err != nil {
		return hypervisor.CreateRequest{}, err
	}
	nic := hypervisor.NIC{MAC: fmt.Sprintf("02:c0:f0:00:%02x:%02x", vmid>>8&0xff, vmid&0xff)}
	if m.opts.NIC != nil {
		if nic, err = m.opts.NIC(ctx, vmid, fmt.Sprintf(m.host.InterfacePattern, vmid)); err != nil {
			return hypervisor.CreateRequest{}, fmt.Errorf("make network card: %w", err)
		}
	}
	memory := m.opts.MemoryBytes
	if memory == 0 {
		memory = 256 << 20
	}
	ref := hypervisor.Ref{RequestID: "conformance", VMID: vmid, Owner: fmt.Sprintf("%ssbx_%d", m.prefix(), vmid)}
	m.mu.Lock()
	m.made = append(m.made, ref)
	m.mu.Unlock()
	return hypervisor.CreateRequest{
		Ref: ref, Name: fmt.Sprintf("conformance-%d", vmid), Template: template, Cores: 1, MemoryBytes: memory, NIC: nic,
		Seed: hypervisor.Seed{
			UserData:      []byte("#cloud-config\n{}\n"),
			MetaData:      fmt.Appendf(nil, `{"instance-id":"conformance-%d"}`, vmid),
			NetworkConfig: []byte(`{"version":2}`),
		},
	}, nil
}

func (m *machines) template(ctx context.Context) (string, error) {
	if m.opts.Template != "" {
		return m.opts.Template, nil
	}
	list, err := m.ListTemplates(ctx)
	if err != nil {
		return "", fmt.Errorf("list templates: %w", err)
	}
	for _, t := range list {
		if isWhole(t) {
			return t.Name, nil
		}
	}
	return "", fmt.Errorf("%w: a template that is whole", ErrSkipped)
}

func isWhole(t hypervisor.Template) bool {
	return !slices.ContainsFunc(t.Findings, func(f plugin.Finding) bool { return f.Level == plugin.LevelMissing })
}

// vm makes one.
func (m *machines) vm(ctx context.Context) (hypervisor.CreateRequest, hypervisor.VM, error) {
	req, err := m.request(ctx)
	if err != nil {
		return req, hypervisor.VM{}, err
	}
	vm, err := m.CreateVM(ctx, req, nil)
	if err != nil {
		return req, vm, fmt.Errorf("create vm %d: %w", req.Ref.VMID, err)
	}
	return req, vm, nil
}

// running makes one that is on.
func (m *machines) running(ctx context.Context) (hypervisor.Ref, error) {
	req, _, err := m.vm(ctx)
	if err != nil {
		return req.Ref, err
	}
	return req.Ref, m.turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn)
}

// turn sets the power and checks the answer and what is read back.
func (m *machines) turn(ctx context.Context, ref hypervisor.Ref, target, want hypervisor.Power) error {
	answer, err := m.SetPower(ctx, ref, target, time.Second)
	if err != nil {
		return fmt.Errorf("set power of vm %d to %s: %w", ref.VMID, target, err)
	}
	got, err := m.GetVM(ctx, ref)
	if err != nil {
		return fmt.Errorf("get vm %d: %w", ref.VMID, err)
	}
	if answer.Power != want || got.Power != want {
		return fmt.Errorf("after set power to %s: the answer says %q, get says %q, want %q", target, answer.Power, got.Power, want)
	}
	return nil
}

// wantGone checks that the VM is certainly not there.
func (m *machines) wantGone(ctx context.Context, ref hypervisor.Ref) error {
	_, err := m.GetVM(ctx, ref)
	if err := wantClass("get of a vm that is gone", err, fault.NotFound); err != nil {
		return err
	}
	all, err := m.ListVMs(ctx, "", true)
	if err != nil {
		return fmt.Errorf("list vms: %w", err)
	}
	if slices.ContainsFunc(all, func(v hypervisor.VM) bool { return v.Ref.VMID == ref.VMID }) {
		return fmt.Errorf("vm %d is not found and yet listed", ref.VMID)
	}
	return nil
}

func (m *machines) checkHost(context.Context) error {
	h := m.host
	name := fmt.Sprintf(h.InterfacePattern, h.VMIDLast)
	switch {
	case h.VMIDFirst == 0 || h.VMIDLast < h.VMIDFirst:
		return fmt.Errorf("vmids %d to %d are no range", h.VMIDFirst, h.VMIDLast)
	case strings.Contains(name, "%!") || !strings.Contains(name, fmt.Sprint(h.VMIDLast)) || len(name) > 15:
		return fmt.Errorf("pattern %q makes the interface name %q", h.InterfacePattern, name)
	case h.Cores == 0 || h.MemoryBytes == 0 || h.MemoryFreeBytes > h.MemoryBytes:
		return fmt.Errorf("resources make no sense: %+v", h)
	}
	return checkFindings(h.Findings)
}

func checkFindings(list []plugin.Finding) error {
	for _, f := range list {
		switch {
		case f.ID == "" || f.Message == "":
			return fmt.Errorf("finding says nothing: %+v", f)
		case f.Level != plugin.LevelOK && f.Level != plugin.LevelWarning && f.Level != plugin.LevelMissing:
			return fmt.Errorf("finding %s has level %q", f.ID, f.Level)
		case f.Level == plugin.LevelMissing && f.Fix == "":
			return fmt.Errorf("finding %s says that something is missing and not what to do", f.ID)
		}
	}
	return nil
}

func (m *machines) templates(ctx context.Context) error {
	list, err := m.ListTemplates(ctx)
	if err != nil {
		return fmt.Errorf("list templates: %w", err)
	}
	if len(list) == 0 && m.opts.Template == "" {
		return fmt.Errorf("%w: a template", ErrSkipped)
	}
	found := m.opts.Template == ""
	for _, t := range list {
		found = found || isWhole(t) && (t.Name == m.opts.Template || fmt.Sprint(t.VMID) == m.opts.Template)
		if t.Name == "" {
			return fmt.Errorf("template without a name: %+v", t)
		}
		if err := checkFindings(t.Findings); err != nil {
			return fmt.Errorf("template %s: %w", t.Name, err)
		}
	}
	if !found {
		return fmt.Errorf("template %s is not listed, or not as whole: %+v", m.opts.Template, list)
	}
	return nil
}
