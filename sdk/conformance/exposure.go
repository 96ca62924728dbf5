package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// ExposureOptions fit the suite to a host.
type ExposureOptions struct {
	Target  string    // address to publish, something that is allowed as one
	Ports   [2]uint16 // host ports that are free
	Effects Effects
}

// Exposure checks an exposure by its contract.
func Exposure(open Open[exposure.Driver], opts ExposureOptions) []Check {
	s := &exposureSuite{open: open, opts: opts, owner: "agentlab:conformance-" + unique() + "/sbx_1"}
	return bind(plugin.Exposure, exposureRules, s.check)
}

// publishID is of the check that fails where nothing can be published; skips alone
// would look well.
const publishID = "exposure.publish"

var exposureRules = []ruled[*rules]{
	reads("exposure.list", 2, "lists what is published",
		"Read back from what publishes, rules of others included.", (*rules).list),
	changes(publishID, 2, "publishes two ports, one of them twice",
		"By (owner, host_port).", (*rules).publish),
	changes("exposure.retarget", 2, "publishes a port anew with another target",
		"By (owner, host_port).", (*rules).retarget),
	changes("exposure.port-taken", 2, "publishes and removes a port that another owner has",
		"EXISTS: the port is published by somebody else.", (*rules).taken),
	changes("exposure.unpublish", 2, "removes one of two ports, twice",
		"Gone is success.", (*rules).unpublish),
	changes("exposure.refused", 2, "publishes what is no rule",
		"A request that can never work is INVALID, and changes nothing.", (*rules).refused),
	changes("exposure.survives", 2, "ends and then kills the plugin's process beside a published port",
		"What a plugin made is there, and goes on, when the process that made it has ended.", (*rules).survives),
}

type exposureSuite struct {
	open  Open[exposure.Driver]
	opts  ExposureOptions
	owner string
}

// rules is the state of one check.
type rules struct {
	*exposureSuite
	exposure.Driver
	process *opened[exposure.Driver]
}

func (s *exposureSuite) check(ctx context.Context, rule Rule, fn func(*rules, context.Context) error) (err error) {
	process, err := s.open.first(ctx)
	if err != nil {
		return err
	}
	defer func() { process.close() }()
	r := &rules{exposureSuite: s, Driver: process.driver, process: process}
	if rule.Changes {
		if err := s.fits(); err != nil {
			if rule.ID == publishID {
				return saw("no target and two free host ports are named, so nothing of Publish was checked").want("them: --set target=ADDRESS --set ports=FIRST,SECOND (ExposureOptions)")
			}
			return err
		}
		defer func() { err = errors.Join(err, r.cleanUp(ctx)) }()
	}
	return fn(r, ctx)
}

// fits tells whether the suite may publish anything at all.
func (s *exposureSuite) fits() error {
	if s.opts.Target == "" || s.opts.Ports[0] == 0 || s.opts.Ports[1] == 0 {
		return fmt.Errorf("%w: a target and two free host ports", ErrSkipped)
	}
	return nil
}

func (r *rules) list(ctx context.Context) error {
	all, err := r.List(ctx, "")
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, rule := range all {
		if rule.HostPort == 0 {
			return saw("rule %+v", rule).want("a host port")
		}
	}
	return nil
}

func (r *rules) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	var errs []error
	for _, port := range r.opts.Ports {
		for _, owner := range []string{r.owner, r.owner + "x"} {
			errs = append(errs, r.Unpublish(ctx, owner, port))
		}
	}
	return errors.Join(errs...)
}

func (r *rules) rule(n int) exposure.Rule {
	return exposure.Rule{Owner: r.owner, HostPort: r.opts.Ports[n], TargetAddr: r.opts.Target, TargetPort: 8080}
}

// put publishes and checks the answer and what is read back.
func (r *rules) put(ctx context.Context, want exposure.Rule) error {
	got, err := r.Publish(ctx, want)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if got.URL == "" {
		return saw("a published rule has no URL").want("where clients reach it")
	}
	want.URL = got.URL
	if got != want {
		return saw("answer of publish is %+v", got).want("%+v", want)
	}
	return r.reads(ctx, want, 1)
}

// reads checks how often a rule is listed, URL aside.
func (r *rules) reads(ctx context.Context, want exposure.Rule, times int) error {
	for _, owner := range []string{want.Owner, ""} {
		list, err := r.List(ctx, owner)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		n := 0
		for _, got := range list {
			if owner != "" && got.Owner != owner {
				return saw("list of %q has a rule of %q", owner, got.Owner).want("its own rules alone")
			}
			got.URL = want.URL
			if got == want {
				n++
			}
		}
		if n != times {
			return saw("list of %q has the rule %d times", owner, n).want("%d: %+v", times, list)
		}
	}
	return nil
}

func (r *rules) publish(ctx context.Context) error {
	for n := range r.opts.Ports {
		if err := r.put(ctx, r.rule(n)); err != nil {
			return err
		}
	}
	return r.opts.Effects.unchanged(ctx, "a repeated publish", func() error { return r.put(ctx, r.rule(0)) })
}

func (r *rules) retarget(ctx context.Context) error {
	if err := r.put(ctx, r.rule(0)); err != nil {
		return err
	}
	moved := r.rule(0)
	moved.TargetPort = 9090
	if err := r.put(ctx, moved); err != nil {
		return err
	}
	return r.reads(ctx, r.rule(0), 0)
}

func (r *rules) taken(ctx context.Context) error {
	if err := r.put(ctx, r.rule(0)); err != nil {
		return err
	}
	return r.opts.Effects.unchanged(ctx, "a stranger's call", func() error {
		thief := r.rule(0)
		thief.Owner += "x"
		_, err := r.Publish(ctx, thief)
		if err := wantClass("publish on somebody else's port", err, fault.Exists); err != nil {
			return err
		}
		// A refusal and "gone already" are both right; touching the rule is not.
		if err := r.Unpublish(ctx, thief.Owner, thief.HostPort); err != nil {
			if err := wantClass("unpublish by a stranger", err, fault.Precondition, fault.Denied); err != nil {
				return err
			}
		}
		return r.reads(ctx, r.rule(0), 1)
	})
}

func (r *rules) unpublish(ctx context.Context) error {
	for n := range r.opts.Ports {
		if err := r.put(ctx, r.rule(n)); err != nil {
			return err
		}
	}
	if err := r.Unpublish(ctx, r.owner, r.opts.Ports[0]); err != nil {
		return fmt.Errorf("unpublish: %w", err)
	}
	if err := r.reads(ctx, r.rule(0), 0); err != nil {
		return err
	}
	if err := r.reads(ctx, r.rule(1), 1); err != nil {
		return err
	}
	return r.opts.Effects.unchanged(ctx, "a repeated unpublish", func() error {
		if err := r.Unpublish(ctx, r.owner, r.opts.Ports[0]); err != nil {
			return fmt.Errorf("repeat unpublish: %w", err)
		}
		return nil
	})
}

func (r *rules) refused(ctx context.Context) error {
	for what, spoil := range map[string]func(*exposure.Rule){
		"no owner":       func(x *exposure.Rule) { x.Owner = "" },
		"no host port":   func(x *exposure.Rule) { x.HostPort = 0 },
		"no target port": func(x *exposure.Rule) { x.TargetPort = 0 },
		"a bad target":   func(x *exposure.Rule) { x.TargetAddr = "localhost;reboot" },
	} {
		rule := r.rule(0)
		spoil(&rule)
		_, err := r.Publish(ctx, rule)
		if err := wantClass("publish with "+what, err, fault.Invalid, fault.Denied); err != nil {
			return err
		}
	}
	return r.reads(ctx, r.rule(0), 0)
}

func (r *rules) survives(ctx context.Context) error {
	if err := r.put(ctx, r.rule(0)); err != nil {
		return err
	}
	return r.process.successors(ctx, func(next exposure.Driver) error {
		r.Driver = next
		return r.reads(ctx, r.rule(0), 1)
	})
}
