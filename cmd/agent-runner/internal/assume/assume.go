package assume

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/seedapply"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/channel"
)

// Config is what Run works on.
type Config struct {
	Layout      layout.Layout
	SetHostname func(string) error    // nil: the kernel's
	SetTime     func(time.Time) error // nil: the kernel's
	Log         hclog.Logger
}

// duty is one part of an identity.
type duty struct {
	name string
	do   func(ctx context.Context) error
}

// Run gives this guest its identity. What it was told at received is old by as
// much as has passed since. After an error the guest is neither the one nor the
// other.
func Run(ctx context.Context, c Config, id channel.Identity, received time.Time) (channel.Assumed, error) {
	c.Layout.Lazy = true
	var out channel.Assumed
	var s seed.Seed
	var nic *card
	defer func() { nic.close() }()
	duties := []duty{
		{"entropy", func(context.Context) error { return addEntropy(c.Layout, id.Entropy) }},
		{"mac", func(context.Context) (err error) {
			nic, err = openCard(c.Layout)
			if err != nil {
				return err
			}
			return nic.setMAC(id.MAC)
		}},
		{"seed", func(context.Context) (err error) {
			s, err = seedapply.ApplyDocuments(
				seedapply.Config{Layout: c.Layout, SetHostname: c.SetHostname, Log: c.Log}, seed.Documents(id.Seed))
			return err
		}},
		{"address", func(context.Context) error { return nic.configure(c.Layout, s.Network, id.MAC) }},
		{"machine-id", func(context.Context) error { return newMachineID(c.Layout) }},
		{"host-key", func(context.Context) (err error) {
			out.HostKey, err = seedapply.NewHostKey(c.Layout)
			return err
		}},
		{"disk", func(context.Context) error { return c.Layout.Flush() }},
		{"clock", func(context.Context) error { return c.setTime(id.Time.Add(time.Since(received))) }},
		{"mark", func(context.Context) error { return os.Remove(c.Layout.TemplateMark()) }},
	}
	for _, d := range duties {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		began := time.Now()
		if err := d.do(ctx); err != nil {
			return out, fmt.Errorf("assume %s: %w", d.name, err)
		}
		out.Duties = append(out.Duties, channel.Duty{Name: d.name, Took: time.Since(began)})
	}
	return out, nil
}

func (c Config) setTime(t time.Time) error {
	if c.SetTime != nil {
		return c.SetTime(t)
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}
