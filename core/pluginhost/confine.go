package pluginhost

import (
	"context"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// A granter adds to spec what the process may do to the system.
type granter func(ctx context.Context, cfg *Config, b Block, spec launch.Spec) (launch.Spec, error)

// tighten is for a plugin that is only asked something.
func tighten(_ context.Context, _ *Config, b Block, spec launch.Spec) (launch.Spec, error) {
	if b.Unconfined {
		return spec, nil
	}
	var err error
	spec.Grant, err = launch.Tightest(spec.Path)
	return spec, err
}

// confine adds to spec what the block lets the plugin have. A plugin gets what it
// asks for and nothing else; one that asks for more than the block allows is not
// started.
func confine(ctx context.Context, cfg *Config, b Block, spec launch.Spec) (launch.Spec, error) {
	if b.Unconfined {
		spec.Grant = launch.Grant{Why: "its block says confine = false"}
		return spec, nil
	}
	spec, asks, err := launch.Confine(ctx, spec, cfg.stateDir(b), cfg.HostVersion)
	if err != nil {
		return spec, err
	}
	if more := excess(b, asks, spec.Grant); more != nil {
		return spec, &ConfigError{Plugin: b.Kind + " " + b.Name, Diagnostics: hcl.Diagnostics{more}}
	}
	return spec, nil
}

// tun is a device that is anybody's where udev runs: without capabilities it is of
// no use.
const tun = "/dev/net/tun"

// excess says what the plugin asks for beyond what its block allows, or would get
// beyond it; nil when that is nothing.
func excess(b Block, asks plugin.Confinement, g launch.Grant) *hcl.Diagnostic {
	if b.Allow == nil || b.Unconfined {
		return nil
	}
	more := slices.DeleteFunc(launch.Words(asks, g), func(word string) bool { return slices.Contains(b.Allow, word) })
	if len(more) == 0 {
		return nil
	}
	d := &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "the plugin asks for " + strings.Join(more, ", ") + ", which its block does not allow",
		Detail:   "add it to allow, or do without the plugin",
		Subject:  &b.Range,
	}
	if g.RootFor != "" && slices.Contains(more, "root") {
		d.Detail = "add it to allow; it needs root because nobody else may open " + g.RootFor
		if g.RootFor == tun {
			d.Detail += ", which chmod 0666 " + tun + " changes"
		}
	}
	return d
}
