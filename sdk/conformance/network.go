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
	Host            network.Host // put in force by the suite; its subnet needs room for four; without a bridge: DefaultHost
	CreateInterface bool         // let the plugin make taps
	Effects         Effects
}

// DefaultHost is a bridge and a subnet that are nobody's.
var DefaultHost = network.Host{Bridge: "confbr0", Subnet: "198.18.77.0/24", Address: "198.18.77.1", GuestTCPPorts: []uint16{8844}}

// Network checks a network by its contract. What it means for packets is for
// the plugin's own tests.
func Network(open Open[network.Driver], opts NetworkOptions) []Check {
	if opts.Host.Bridge == "" {
		opts.Host = DefaultHost
	}
	s := &networkSuite{open: open, opts: opts, run: unique()}
	return bind(plugin.Network, networkRules, s.check)
}

var networkRules = []ruled[*ports]{
	reads("network.check-host", 2, "reads the findings about this host",
		"Bridge, forwarding, base rules, tools: findings with fixes. Changes nothing.", (*ports).checkHost),
	reads("network.list", 2, "lists what is attached, and a sandbox that is not",
		"As read back from the kernel, with drift.", (*ports).list),
	changes("network.apply-host", 2, "puts the host's side in force, twice",
		"Makes the kernel side so and keeps what is attached.", (*ports).applyHost),
	changes("network.attach", 2, "attaches a sandbox and reads it back",
		"the plugin applies it in one kernel transaction, and what is really in force can be read back.", (*ports).attach),
	changes("network.attach-twice", 2, "repeats an attach",
		"A repeated call has one effect.", (*ports).attachTwice),
	changes("network.newer-generation", 2, "attaches with a newer generation and another policy",
		"By sandbox, newer generation wins: one older than that in force is CONFLICT.", (*ports).newer),
	changes("network.older-generation", 2, "attaches with an older generation",
		"By sandbox, newer generation wins: one older than that in force is CONFLICT.", (*ports).older),
	changes("network.modes", 2, "attaches with every mode and with exceptions",
		"the plugin applies it in one kernel transaction, and what is really in force can be read back.", (*ports).modes),
	changes("network.refused", 2, "attaches with what cannot be enforced",
		"if a part cannot be enforced the call fails and nothing changes.", (*ports).refused),
	changes("network.detach", 2, "detaches, again, and uses what is free for another sandbox",
		"Removes rules and the tap that Attach made. Gone is success.", (*ports).detach),
	changes("network.several", 2, "attaches three sandboxes and detaches one",
		"Calls on one sandbox are serialised by the core; others are concurrent.", (*ports).several),
	changes("network.survives", 2, "ends and then kills the plugin's process beside an attached sandbox",
		"What a plugin made is there, and goes on, when the process that made it has ended.", (*ports).survives),
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

func (s *networkSuite) check(ctx context.Context, r Rule, fn func(*ports, context.Context) error) (err error) {
	process, err := s.open.first(ctx)
	if err != nil {
		return err
	}
	defer func() { process.close() }()
	p := &ports{networkSuite: s, Driver: process.driver, process: process}
	if !r.Changes {
		return fn(p, ctx)
	}
	if _, err := p.ApplyHost(ctx, s.opts.Host); err != nil {
		return fmt.Errorf("apply host: %w", err)
	}
	defer func() { err = errors.Join(err, p.cleanUp(ctx)) }()
	return fn(p, ctx)
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
			return saw("list of %q has %s %d times", id, want.SandboxID, len(list)).want("it once")
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
		return saw("%s drifted: %s", got.SandboxID, a.Drift).want("in force what was asked for")
	}
	if got.SandboxID != want.SandboxID || got.Generation != want.Generation || got.Bridge != want.Bridge ||
		got.Interface != want.Interface || got.CreateInterface != want.CreateInterface || got.MAC != want.MAC || got.Address != want.Address ||
		got.Mode != want.Mode || !slices.Equal(got.Allow, want.Allow) {
		return saw("in force is %+v", got).want("%+v", want)
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
		return saw("%s is attached: %+v", id, list).want("it not to be")
	}
	return nil
}

func (p *ports) checkHost(ctx context.Context) error {
	findings, err := p.CheckHost(ctx, p.opts.Host)
	if err != nil {
		return fmt.Errorf("check host: %w", err)
	}
	return checkFindings(findings)
}

func (p *ports) list(ctx context.Context) error {
	all, err := p.ListAttachments(ctx, "")
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	for _, a := range all {
		if a.InForce.SandboxID == "" || a.InForce.Interface == "" {
			return saw("attachment %+v", a.InForce).want("a sandbox and an interface")
		}
	}
	return p.none(ctx, "sbx_"+p.run)
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
			return saw("after apply, %s is missing: %s", f.ID, f.Message).want("nothing missing")
		}
	}
	return p.opts.Effects.unchanged(ctx, "a repeated apply", func() error {
		report, err := p.ApplyHost(ctx, p.opts.Host)
		if err != nil {
			return fmt.Errorf("apply again: %w", err)
		}
		if len(report.Changes) > 0 {
			return saw("a repeated apply says that it changed %q", report.Changes).want("no change")
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
