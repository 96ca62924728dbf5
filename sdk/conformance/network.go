package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// NetworkOptions fit the suite to a host.
type NetworkOptions struct {
	Host            network.Host // put in force by the suite; its subnet needs room for four
	CreateInterface bool         // let the plugin make taps
	Effects         Effects
}

// Network gives the rules of the network contract. What they mean for packets
// is for the plugin's own tests.
func Network(open Open[network.Driver], opts NetworkOptions) []Check {
	s := &networkSuite{open: open, opts: opts, run: unique()}
	return []Check{
		s.check("apply host", (*ports).applyHost),
		s.check("attach", (*ports).attach),
		s.check("attach twice", (*ports).attachTwice),
		s.check("newer generation", (*ports).newer),
		s.check("older generation", (*ports).older),
		s.check("every mode", (*ports).modes),
		s.check("refused requests", (*ports).refused),
		s.check("detach", (*ports).detach),
		s.check("several sandboxes", (*ports).several),
		s.check("survives its process", (*ports).survives),
	}
}

type networkSuite struct {
	open Open[network.Driver]
	opts NetworkOptions
	run  string
}

// ports is the state of one check.
type ports struct {
	*networkSuite
	network.Driver
	process *opened[network.Driver]
	made    []string
}

func (s *networkSuite) check(name string, fn func(*ports, context.Context) error) Check {
	return Check{Name: name, Run: func(ctx context.Context) (err error) {
		process, err := s.open.first(ctx)
		if err != nil {
			return err
		}
		defer process.close()
		p := &ports{networkSuite: s, Driver: process.driver, process: process}
		if _, err := p.ApplyHost(ctx, s.opts.Host); err != nil {
			return fmt.Errorf("apply host: %w", err)
		}
		defer func() { err = errors.Join(err, p.cleanUp(ctx)) }()
		return fn(p, ctx)
	}}
}

func (p *ports) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	var errs []error
	for _, id := range p.made {
		if err := p.Detach(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("clean up %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// request asks for a policy; n tells the requests of one check apart.
func (p *ports) request(n int) network.AttachRequest {
	req := network.AttachRequest{
		RequestID: "conformance", SandboxID: fmt.Sprintf("sbx_%s%d", p.run, n), Generation: 5,
		Bridge: p.opts.Host.Bridge, Interface: fmt.Sprintf("tap6499%di0", n), CreateInterface: p.opts.CreateInterface,
		MAC: fmt.Sprintf("02:c0:f0:01:00:%02x", n), Address: p.address(n), Mode: network.ModeNAT,
	}
	p.made = append(p.made, req.SandboxID)
	return req
}

// address counts down from the end of the subnet.
func (p *ports) address(n int) string {
	prefix, err := netip.ParsePrefix(p.opts.Host.Subnet)
	if err != nil || !prefix.Addr().Is4() {
		return ""
	}
	b := prefix.Masked().Addr().As4()
	for i := prefix.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	b[3] -= byte(1 + n) // not the broadcast address
	return netip.AddrFrom4(b).String()
}

// put attaches and checks the answer and what is read back.
func (p *ports) put(ctx context.Context, req network.AttachRequest) error {
	answer, err := p.Attach(ctx, req)
	if err != nil {
		return fmt.Errorf("attach %s: %w", req.SandboxID, err)
	}
	if err := sameAttachment(answer, req); err != nil {
		return fmt.Errorf("answer of attach: %w", err)
	}
	return p.reads(ctx, req)
}

// reads checks what is in force.
func (p *ports) reads(ctx context.Context, want network.AttachRequest) error {
	for _, id := range []string{want.SandboxID, ""} {
		list, err := p.ListAttachments(ctx, id)
		if err != nil {
			return fmt.Errorf("list attachments: %w", err)
		}
		list = slices.DeleteFunc(list, func(a network.Attachment) bool { return a.InForce.SandboxID != want.SandboxID })
		if len(list) != 1 {
			return fmt.Errorf("list of %q has %s %d times", id, want.SandboxID, len(list))
		}
		if err := sameAttachment(list[0], want); err != nil {
			return fmt.Errorf("list of %q: %w", id, err)
		}
	}
	return nil
}

func sameAttachment(a network.Attachment, want network.AttachRequest) error {
	got := a.InForce
	if a.Drifted {
		return fmt.Errorf("%s drifted: %s", got.SandboxID, a.Drift)
	}
	if got.SandboxID != want.SandboxID || got.Generation != want.Generation || got.Bridge != want.Bridge ||
		got.Interface != want.Interface || got.CreateInterface != want.CreateInterface || got.MAC != want.MAC || got.Address != want.Address ||
		got.Mode != want.Mode || !slices.Equal(got.Allow, want.Allow) {
		return fmt.Errorf("in force is %+v, want %+v", got, want)
	}
	return nil
}

// none checks that a sandbox has no policy.
func (p *ports) none(ctx context.Context, id string) error {
	list, err := p.ListAttachments(ctx, id)
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	if len(list) != 0 {
		return fmt.Errorf("%s is still attached: %+v", id, list)
	}
	return nil
}

func (p *ports) applyHost(ctx context.Context) error {
	findings, err := p.CheckHost(ctx, p.opts.Host)
	if err != nil {
		return fmt.Errorf("check host: %w", err)
	}
	if err := checkFindings(findings); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Level == plugin.LevelMissing {
			return fmt.Errorf("after apply, %s is still missing: %s", f.ID, f.Message)
		}
	}
	return p.opts.Effects.unchanged(ctx, "a repeated apply", func() error {
		report, err := p.ApplyHost(ctx, p.opts.Host)
		if err != nil {
			return fmt.Errorf("apply again: %w", err)
		}
		if len(report.Changes) > 0 {
			return fmt.Errorf("a repeated apply says that it changed %q", report.Changes)
		}
		return nil
	})
}

func (p *ports) attach(ctx context.Context) error {
	req := p.request(0)
	if err := p.none(ctx, req.SandboxID); err != nil {
		return err
	}
	return p.put(ctx, req)
}

func (p *ports) attachTwice(ctx context.Context) error {
	req := p.request(0)
	if err := p.put(ctx, req); err != nil {
		return err
	}
	return p.opts.Effects.unchanged(ctx, "a repeated attach", func() error {
		req.RequestID = "conformance again"
		return p.put(ctx, req)
	})
}

func (p *ports) newer(ctx context.Context) error {
	req := p.request(0)
	if err := p.put(ctx, req); err != nil {
		return err
	}
	req.Generation++
	req.Mode = network.ModeOff
	return p.put(ctx, req)
}

func (p *ports) older(ctx context.Context) error {
	req := p.request(0)
	if err := p.put(ctx, req); err != nil {
		return err
	}
	late := req
	late.Generation--
	late.Mode = network.ModeOff
	_, err := p.Attach(ctx, late)
	if err := wantClass("attach with an older generation", err, fault.Conflict); err != nil {
		return err
	}
	return p.reads(ctx, req)
}

func (p *ports) modes(ctx context.Context) error {
	exception := network.Allow{CIDR: "192.0.2.7/32", Protocol: "tcp", FirstPort: 443, LastPort: 443}
	wide := network.Allow{CIDR: "198.51.100.0/24", Protocol: "udp", FirstPort: 1000, LastPort: 2000}
	req := p.request(0)
	for _, tt := range []struct {
		mode  network.Mode
		allow []network.Allow
	}{
		{network.ModeOff, nil},
		{network.ModeAllowlist, nil},
		{network.ModeAllowlist, []network.Allow{exception, wide}},
		{network.ModeNAT, []network.Allow{exception}},
		{network.ModeNAT, nil},
	} {
		req.Generation++
		req.Mode, req.Allow = tt.mode, tt.allow
		if err := p.put(ctx, req); err != nil {
			return fmt.Errorf("mode %s: %w", tt.mode, err)
		}
	}
	return nil
}

// refused: a request that cannot be enforced changes nothing, neither for a new
// sandbox nor for one that is attached.
func (p *ports) refused(ctx context.Context) error {
	good := p.request(0)
	if err := p.put(ctx, good); err != nil {
		return err
	}
	for what, spoil := range map[string]func(*network.AttachRequest){
		"an unknown mode":   func(r *network.AttachRequest) { r.Mode = "open" },
		"no mode":           func(r *network.AttachRequest) { r.Mode = "" },
		"a bad address":     func(r *network.AttachRequest) { r.Address = "10.0.0" },
		"no address":        func(r *network.AttachRequest) { r.Address = "" },
		"a bad mac":         func(r *network.AttachRequest) { r.MAC = "02:00" },
		"a bad destination": func(r *network.AttachRequest) { r.Allow = []network.Allow{{CIDR: "example.com"}} },
		"no interface":      func(r *network.AttachRequest) { r.Interface = "" },
		"a rule for an interface": func(r *network.AttachRequest) {
			r.Interface = `x" accept`
		},
	} {
		for _, req := range []network.AttachRequest{good, p.request(1)} {
			req.Generation = 9
			spoil(&req)
			_, err := p.Attach(ctx, req)
			if err := wantClass("attach with "+what, err, fault.Invalid, fault.Unsupported, fault.Precondition); err != nil {
				return err
			}
		}
	}
	if err := p.none(ctx, p.request(1).SandboxID); err != nil {
		return err
	}
	return p.reads(ctx, good)
}

func (p *ports) detach(ctx context.Context) error {
	req := p.request(0)
	if err := p.put(ctx, req); err != nil {
		return err
	}
	if err := p.Detach(ctx, req.SandboxID); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if err := p.none(ctx, req.SandboxID); err != nil {
		return err
	}
	err := p.opts.Effects.unchanged(ctx, "a repeated detach", func() error {
		if err := p.Detach(ctx, req.SandboxID); err != nil {
			return fmt.Errorf("repeat detach: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// What the sandbox used is free for the next one.
	next := p.request(1)
	next.Interface, next.MAC, next.Address, next.Generation = req.Interface, req.MAC, req.Address, 1
	return p.put(ctx, next)
}

func (p *ports) several(ctx context.Context) error {
	var reqs []network.AttachRequest
	for n := range 3 {
		req := p.request(n)
		if err := p.put(ctx, req); err != nil {
			return err
		}
		reqs = append(reqs, req)
	}
	if err := p.Detach(ctx, reqs[1].SandboxID); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	for _, i := range []int{0, 2} {
		if err := p.reads(ctx, reqs[i]); err != nil {
			return fmt.Errorf("after another one's detach: %w", err)
		}
	}
	return p.none(ctx, reqs[1].SandboxID)
}

func (p *ports) survives(ctx context.Context) error {
	req := p.request(0)
	if err := p.put(ctx, req); err != nil {
		return err
	}
	return p.process.successors(ctx, func(next network.Driver) error {
		p.Driver = next
		if err := p.reads(ctx, req); err != nil {
			return err
		}
		late := req
		late.Generation--
		_, err := p.Attach(ctx, late)
		return wantClass("attach with an older generation", err, fault.Conflict)
	})
}
