package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
)

// ExposureOptions fit the suite to a host.
type ExposureOptions struct {
	Target  string    // address to publish, something that is allowed as one
	Ports   [2]uint16 // host ports that are free
	Effects Effects
}

// Exposure gives the rules of the exposure contract.
func Exposure(open Open[exposure.Driver], opts ExposureOptions) []Check {
	s := &exposureSuite{open: open, opts: opts, owner: "agentlab:conformance-" + unique() + "/sbx_1"}
	return []Check{
		s.check("publish", (*rules).publish),
		s.check("another target", (*rules).retarget),
		s.check("port of somebody else", (*rules).taken),
		s.check("unpublish", (*rules).unpublish),
		s.check("refused rules", (*rules).refused),
		s.check("survives its process", (*rules).survives),
	}
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

func (s *exposureSuite) check(name string, fn func(*rules, context.Context) error) Check {
	return Check{Name: name, Run: func(ctx context.Context) (err error) {
		process, err := s.open.first(ctx)
		if err != nil {
			return err
		}
		defer process.close()
		r := &rules{exposureSuite: s, Driver: process.driver, process: process}
		defer func() { err = errors.Join(err, r.cleanUp(ctx)) }()
		return fn(r, ctx)
	}}
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
		return fmt.Errorf("a published rule has no URL")
	}
	want.URL = got.URL
	if got != want {
		return fmt.Errorf("answer of publish is %+v, want %+v", got, want)
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
				return fmt.Errorf("list of %q has a rule of %q", owner, got.Owner)
			}
			got.URL = want.URL
			if got == want {
				n++
			}
		}
		if n != times {
			return fmt.Errorf("list of %q has the rule %d times, want %d: %+v", owner, n, times, list)
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
