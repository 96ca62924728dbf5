package driver

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/links"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/nft"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/ruleset"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

// cleanupTimeout bounds what is taken back after a failed call.
const cleanupTimeout = 15 * time.Second

// Config is the plugin's configuration.
type Config struct {
	WANInterface     string // "": any but the bridge and TailnetInterface
	TailnetInterface string // "": none
	NFTBinary        string
	MaxConnections   int    // of one sandbox, tracked at a time; 0: no limit
	HostUUID         string // part of the mark on taps
	StateDir         string // where processes of this plugin keep apart; "": there is only this one
}

// Driver is a network.Driver. Its calls may run in parallel; changes wait for
// one another, also for those of a process that is being replaced.
type Driver struct {
	cfg  Config
	nft  nft.Tool
	log  hclog.Logger
	lock chan struct{} // holds one token while something changes

	// Under lock: the kernel's ability, asked for once, whether this process has
	// set the host up, and whether no connection is left that the rules deny.
	probed, namesBridge, applied, cut bool
}

var _ network.Driver = (*Driver)(nil)

// New returns a driver. It does not touch the system yet.
func New(cfg Config, log hclog.Logger) *Driver {
	return &Driver{cfg: cfg, nft: nft.Tool{Path: cfg.NFTBinary}, log: log, lock: make(chan struct{}, 1)}
}

// hold waits for the lock and returns its release.
func (d *Driver) hold(ctx context.Context) (func(), error) {
	select {
	case d.lock <- struct{}{}:
		unlock, err := d.lockOut(ctx)
		if err != nil {
			<-d.lock
			return nil, err
		}
		return func() { unlock(); <-d.lock }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.ClassOf(ctx.Err()), "wait for another network change: %w", ctx.Err())
	}
}

// mark is the alias of a tap that we made for a sandbox.
func (d *Driver) mark(sandboxID string) string { return d.markPrefix() + sandboxID }

func (d *Driver) markPrefix() string { return "agentlab:" + d.cfg.HostUUID + "/" }

func (d *Driver) sandboxOf(link links.Link) (string, bool) {
	return strings.CutPrefix(link.Alias, d.markPrefix())
}

// probe is a ruleset that only a kernel with NFT_BRIDGE_META takes.
const probe = `table bridge agentlab_probe {
	chain prerouting {
		type filter hook prerouting priority -350; policy accept;
		meta ibrname "agentlab" drop
	}
}
`

func (d *Driver) ways(ctx context.Context) (ruleset.Ways, error) {
	if !d.probed {
		ok, err := d.nft.Supports(ctx, probe)
		if err != nil {
			return ruleset.Ways{}, err
		}
		d.probed, d.namesBridge = true, ok
	}
	return ruleset.Ways{
		WAN: d.cfg.WANInterface, Tailnet: d.cfg.TailnetInterface,
		NamesBridge: d.namesBridge, MaxConnections: d.cfg.MaxConnections,
	}, nil
}

// view is what the kernel holds at one moment.
type view struct {
	ways     ruleset.Ways
	tables   []ruleset.Table
	host     policy.Host
	ready    bool // host is known: ApplyHost has been here
	policies []policy.Policy
	links    map[string]links.Link
}

func (d *Driver) look(ctx context.Context, h links.Handle) (view, error) {
	ways, err := d.ways(ctx)
	if err != nil {
		return view{}, err
	}
	v := view{ways: ways}
	if v.tables, err = d.nft.Read(ctx); err != nil {
		return view{}, err
	}
	v.host, v.ready = ruleset.ReadHost(v.tables)
	v.policies = ruleset.ReadPolicies(v.tables)
	v.links, err = h.List()
	return v, err
}

func (v view) policyOf(sandboxID string) (policy.Policy, bool) {
	for _, p := range v.policies {
		if p.SandboxID == sandboxID {
			return p, true
		}
	}
	return policy.Policy{}, false
}

// with gives the policies with p in place of its predecessor, without changes v.
func (v view) with(p policy.Policy) []policy.Policy { return append(v.without(p.SandboxID), p) }

func (v view) without(sandboxID string) []policy.Policy {
	var out []policy.Policy
	for _, p := range v.policies {
		if p.SandboxID != sandboxID {
			out = append(out, p)
		}
	}
	return out
}

// enforce makes the kernel's tables those of host and policies, in one
// transaction, and reports whether anything had to change.
func (d *Driver) enforce(ctx context.Context, v view, host policy.Host, policies []policy.Policy) (bool, error) {
	script := ruleset.Transaction(v.tables, ruleset.Build(host, v.ways, policies))
	if script == "" {
		return false, nil
	}
	d.cut = false // also after an error, which leaves open what is in force
	return true, d.nft.Apply(ctx, script)
}

// Health reports whether the rules in force are the right ones. It does not
// wait for a change that is being made.
func (d *Driver) Health(ctx context.Context) (problem string, err error) {
	select {
	case d.lock <- struct{}{}:
		defer func() { <-d.lock }()
	default:
		return "", nil
	}
	ways, err := d.ways(ctx)
	if err != nil {
		return "", err
	}
	tables, err := d.nft.Read(ctx)
	if err != nil {
		return "", err
	}
	host, ok := ruleset.ReadHost(tables)
	if !ok && !d.applied {
		return "", nil // nothing was to be in force yet
	}
	if !ok {
		return "the host's rules are not in force", nil
	}
	policies := ruleset.ReadPolicies(tables)
	if found := ruleset.Differences(tables, ruleset.Build(host, ways, policies), policies); len(found) > 0 {
		return found[0].Text, nil
	}
	return "", nil
}
