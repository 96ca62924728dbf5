package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Plan says which plugin is checked, how far, and what fits the suites to it.
type Plan struct {
	Binary                    // Kind is set for each of Kinds; without a StateDir each kind gets an empty one
	Kinds       []plugin.Kind // empty: all that it serves
	Level       Level         // 0: LevelResilience
	Destructive bool          // also checks that make things on this host
	Only        []string      // each an ID, or the beginning of some; empty: all

	Hypervisor HypervisorOptions
	Network    NetworkOptions
	Secrets    SecretsOptions
	Exposure   ExposureOptions
}

// errDestructive is why a check was left out.
var errDestructive = fmt.Errorf("%w: it makes things on this host and removes them again: ask for it with --destructive (Plan.Destructive)", ErrSkipped)

// Checks lists the checks of the plan. It starts the plugin once, to ask what
// it is; without an answer there are those of the protocol alone, which tell
// what is wrong.
func (p Plan) Checks(ctx context.Context) ([]Check, plugin.Info, error) {
	path, err := filepath.Abs(p.Path)
	if err != nil {
		return nil, plugin.Info{}, fault.New(fault.Invalid, "find %s: %w", p.Path, err)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, plugin.Info{}, fault.New(fault.NotFound, "there is no plugin: %w", err)
	}
	p.Path = path
	p.Level = cmp.Or(p.Level, LevelResilience)
	info, err := p.ask(ctx)
	if errors.Is(err, errUnfit) {
		return nil, info, err
	}
	if err != nil {
		checks := p.choose(Base(p.Binary))
		if len(checks) == 0 {
			return nil, plugin.Info{}, err
		}
		return checks, plugin.Info{}, nil
	}
	kinds := p.Kinds
	if len(kinds) == 0 {
		kinds = info.Kinds
	}
	var out []Check
	for i, k := range kinds {
		if !slices.Contains(info.Kinds, k) {
			return nil, info, fault.New(fault.Invalid, "%s %s", info.Name, k.NotOf(info.Kinds))
		}
		b := p.Binary
		b.Kind = k
		if i == 0 {
			out = append(out, Base(b)...)
		}
		out = append(out, p.ofKind(b)...)
	}
	if len(kinds) == 0 {
		out = Base(p.Binary)
	}
	if err := p.findOnly(out); err != nil {
		return nil, info, err
	}
	return p.choose(out), info, nil
}

// findOnly refuses a part of Only that names none of the plan's checks.
func (p Plan) findOnly(all []Check) error {
	for _, o := range p.Only {
		var at Level // of the first such check that is above the plan's
		found := slices.ContainsFunc(all, func(c Check) bool {
			named := names(o, c.ID)
			if named && at == 0 {
				at = c.Level
			}
			return named && c.Level <= p.Level
		})
		other := slices.ContainsFunc(ids(), func(id string) bool { return names(o, id) })
		switch {
		case found:
		case at > 0:
			return fault.New(fault.Invalid, "level %d has no check that is named %q", p.Level, o).WithHint("level %d has: --level %d", at, at)
		case other:
			return fault.New(fault.Invalid, "%q names checks of another kind of plugin", o).WithHint("agentlab plugin checks %s lists them", o)
		default:
			return fault.New(fault.Invalid, "no check is named %q", o).WithHint("agentlab plugin checks lists all")
		}
	}
	return nil
}

// ofKind lists the checks of one kind, levels 2 and 3.
func (p Plan) ofKind(b Binary) (out []Check) {
	out = append(Capabilities(b), Endurance(b)...)
	for i := range out {
		out[i].Kind = b.Kind
	}
	defer func() {
		for i := range out {
			out[i].Run = b.telling(out[i].Run)
		}
	}()
	switch b.Kind {
	case plugin.Hypervisor:
		out = append(out, Hypervisor(b.Hypervisor(), p.Hypervisor)...)
		out = append(out, HypervisorCrashes(b, p.Hypervisor)...)
	case plugin.Network:
		out = append(out, Network(b.Network(), p.Network)...)
		out = append(out, NetworkCrashes(b, p.Network)...)
	case plugin.Secrets:
		out = append(out, Secrets(b.Secrets(), p.Secrets)...)
	case plugin.Exposure:
		out = append(out, Exposure(b.Exposure(), p.Exposure)...)
	}
	return out
}

// ask starts the plugin, asks what it is, and whether its configuration is
// whole.
func (p Plan) ask(ctx context.Context) (plugin.Info, error) {
	s := &subject{Binary: p.Binary}
	err := s.up(ctx)
	if s.process != nil {
		defer s.end()
	}
	if err != nil {
		return plugin.Info{}, err
	}
	info, err := s.base().Info(ctx, "")
	if err != nil {
		return info, err
	}
	_, err = s.whole(ctx, s.base())
	return info, err
}

// choose leaves out what the plan does not ask for; what would change this host
// stays, as a check that says why it is not made.
func (p Plan) choose(all []Check) (out []Check) {
	for _, c := range all {
		switch {
		case c.Level > p.Level || !p.Wants(c.ID):
			continue
		case c.Changes && !p.Destructive:
			c.Run = func(context.Context) error { return errDestructive }
		}
		out = append(out, c)
	}
	return out
}

// Wants reports whether Only names the check.
func (p Plan) Wants(id string) bool {
	return len(p.Only) == 0 || slices.ContainsFunc(p.Only, func(o string) bool { return names(o, id) })
}

// names reports whether text is the ID, or begins it and is no other's.
func names(text, id string) bool {
	return text == id || strings.HasPrefix(id, text) && !slices.Contains(ids(), text)
}

// ids are those of the catalogue.
var ids = sync.OnceValue(func() (out []string) {
	for _, r := range Catalogue() {
		out = append(out, r.ID)
	}
	return out
})

// Run makes the checks one after the other and tells each result, when it has
// one. A failure is no error; an error is a plan that cannot be carried out.
func (p Plan) Run(ctx context.Context, each func(Result)) (Report, error) {
	start := time.Now()
	if p.StateDir == "" {
		dir, err := os.MkdirTemp("", "conf-state")
		if err != nil {
			return Report{}, fault.New(fault.Unavailable, "make state directory: %w", err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		// What a plugin starts as another user passes through, as it does on a host.
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // it holds nothing that can be listed
			return Report{}, fault.New(fault.Unavailable, "make state directory: %w", err)
		}
		p.StateDir = dir
	}
	checks, info, err := p.Checks(ctx)
	if err != nil {
		return Report{}, err
	}
	report := Report{Binary: p.Path, Plugin: info.Name, Version: info.Version, Level: cmp.Or(p.Level, LevelResilience), Results: []Result{}}
	hopeless := "" // the check without which none after it can be kept
	for _, c := range checks {
		one := resultOf(c.Rule, fmt.Errorf("%w: %s to be passed", ErrSkipped, hopeless), 0)
		if hopeless == "" || c.ID == hopeless {
			one = p.carryOut(ctx, c)
		}
		report.Seconds = time.Since(start).Round(time.Millisecond).Seconds()
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if report.add(one); one.State == Failed && (c.ID == "protocol.handshake" || c.ID == "protocol.configure") {
			hopeless = c.ID
		}
		if each != nil {
			each(one)
		}
	}
	return report, nil
}

func (p Plan) carryOut(ctx context.Context, c Check) Result {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	start := time.Now()
	err := c.Run(ctx)
	return resultOf(c.Rule, err, time.Since(start))
}

// Test makes the checks of a plan as subtests.
func Test[S T[S]](t S, p Plan) {
	t.Helper()
	if p.StateDir == "" {
		p.StateDir = t.TempDir()
		// A plugin with a user of its own passes through, as it does on a host.
		if err := os.Chmod(filepath.Dir(p.StateDir), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	checks, _, err := p.Checks(t.Context())
	if err == nil && len(checks) == 0 {
		err = errors.New("the plan has no check")
	}
	if err != nil {
		t.Fatal(err)
	}
	Run(t, checks)
}
