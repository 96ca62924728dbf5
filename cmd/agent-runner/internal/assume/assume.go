package assume

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/enroll"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/seedapply"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/channel"
)

// Config is what Run works on.
type Config struct {
	Layout layout.Layout
	Kernel Kernel
	Log    hclog.Logger
}

// Kernel is what an identity changes beside files.
type Kernel struct {
	AddEntropy  func([]byte) error
	SetMAC      func(mac string) error
	Configure   func(n seed.NetworkConfig, mac string) error
	SetHostname func(string) error
	SetTime     func(time.Time) error
}

// duty is one part of an identity.
type duty struct {
	name string
	do   func() error
}

// Run gives this guest its identity. What it was told at received is old by as
// much as has passed since. It is not to use it before its host says so. After an error the guest is neither the one nor the
// other.
func Run(ctx context.Context, c Config, id channel.Identity, received time.Time) (channel.Assumed, error) {
	c.Layout = c.Layout.Lazily()
	var out channel.Assumed
	var s seed.Seed
	flushed := make(chan error, 1)
	duties := []duty{
		{"entropy", func() error { return c.Kernel.AddEntropy(id.Entropy) }},
		{"mac", func() error { return c.Kernel.SetMAC(id.MAC) }},
		{"seed", func() (err error) {
			s, err = seedapply.ApplyDocuments(
				seedapply.Config{Layout: c.Layout, SetHostname: c.Kernel.SetHostname, Log: c.Log}, seed.Documents(id.Seed))
			return err
		}},
		{"machine-id", func() error { return newMachineID(c.Layout) }},
		{"host-key", func() (err error) {
			out.HostKey, err = seedapply.NewHostKey(c.Layout)
			return err
		}},
		{"credential", func() error { return enroll.EnsureCredential(c.Layout) }},
		{"flush", func() error { // goes on beside the next one
			go func() { flushed <- c.Layout.Flush() }()
			return nil
		}},
		{"address", func() error { return c.Kernel.Configure(s.Network, id.MAC) }},
		{"disk", func() error { return <-flushed }},
		{"clock", func() error { return c.Kernel.SetTime(id.Time.Add(time.Since(received))) }},
		// On tmpfs, and for a restart of this program only: it must not take itself
		// for a template again, nor for a guest that may use what it was given.
		{"mark", func() error {
			return layout.WriteFile(c.Layout.TemplateMark(), []byte(layout.NamedMark), 0o600, layout.Owner{})
		}},
	}
	for _, d := range duties {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		began := time.Now()
		if err := d.do(); err != nil {
			return out, fmt.Errorf("assume %s: %w", d.name, err)
		}
		out.Duties = append(out.Duties, channel.Duty{Name: d.name, Took: time.Since(began)})
	}
	return out, nil
}
