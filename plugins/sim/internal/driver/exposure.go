package driver

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Exposure publishes ports in the simulated world.
type Exposure struct{ world *world.World }

var _ exposure.Driver = (*Exposure)(nil)

// NewExposure makes the driver.
func NewExposure(w *world.World) *Exposure { return &Exposure{world: w} }

func port(p uint16) string { return strconv.Itoa(int(p)) }

// Publish records the rule.
func (x *Exposure) Publish(ctx context.Context, rule exposure.Rule) (exposure.Rule, error) {
	if err := x.world.Reach(ctx, "exposure.publish", port(rule.HostPort)); err != nil {
		return exposure.Rule{}, err
	}
	if _, err := netip.ParseAddr(rule.TargetAddr); err != nil || rule.Owner == "" || rule.HostPort == 0 || rule.TargetPort == 0 {
		return exposure.Rule{}, fault.New(fault.Invalid, "a rule needs an owner, two ports and a target address")
	}
	rule.URL = fmt.Sprintf("tcp://host.sim.invalid:%d", rule.HostPort)
	err := x.world.Change(ctx, func(tx *world.Tx) error {
		have, found, err := tx.Rule(rule.HostPort)
		if err != nil || (found && have == rule) {
			return err
		}
		if found && have.Owner != rule.Owner {
			return fault.New(fault.Exists, "port %d is published for another sandbox", rule.HostPort).WithHolder(have.Owner)
		}
		tx.Record(world.Effect{Op: "exposure.publish", Subject: port(rule.HostPort), Owner: rule.Owner})
		return tx.PutRule(rule)
	})
	if err != nil {
		return exposure.Rule{}, err
	}
	return rule, nil
}

// Unpublish removes the owner's rule. Another owner's is not what was meant, so
// it stays and the owner's is gone.
func (x *Exposure) Unpublish(ctx context.Context, owner string, hostPort uint16) error {
	if err := x.world.Reach(ctx, "exposure.unpublish", port(hostPort)); err != nil {
		return err
	}
	return x.world.Change(ctx, func(tx *world.Tx) error {
		have, found, err := tx.Rule(hostPort)
		if err != nil || !found || have.Owner != owner {
			return err
		}
		tx.Record(world.Effect{Op: "exposure.unpublish", Subject: port(hostPort), Owner: owner})
		tx.DeleteRule(hostPort)
		return nil
	})
}

// List reads the rules back.
func (x *Exposure) List(ctx context.Context, owner string) (out []exposure.Rule, err error) {
	if err := x.world.Reach(ctx, "exposure.list", ""); err != nil {
		return nil, err
	}
	err = x.world.View(ctx, func(tx *world.Tx) error {
		all, err := tx.Rules()
		for _, r := range all {
			if owner == "" || r.Owner == owner {
				out = append(out, r)
			}
		}
		return err
	})
	return out, err
}
