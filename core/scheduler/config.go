package scheduler

import (
	"cmp"
	"context"
	"net/netip"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
)

// SeedInput is what a seed is rendered from.
type SeedInput = seed.Input

// Config is what a Scheduler is built from. All fields are required unless they
// say otherwise.
type Config struct {
	Store      Store
	Hypervisor hypervisor.Driver
	Network    network.Driver

	HostUUID    string
	Bridge      string
	Subnet      netip.Prefix // of the sandboxes, IPv4
	HostAddress netip.Addr   // the host's own in Subnet
	HostNetwork network.Host // the same for the network plugin
	GuestURL    string       // where guests find the guest API
	DNS         []netip.Addr // may be empty

	RenderSeed func(SeedInput) (hypervisor.Seed, error) // nil renders with core/seed
	// CleanRepo removes an upload's file; gone is success. nil does nothing.
	CleanRepo func(ctx context.Context, repoID string) error
	// ArtifactJobs lists the jobs that have files, CleanArtifacts removes those of
	// one; gone is success. nil: artifacts are kept.
	ArtifactJobs   func(ctx context.Context) ([]string, error)
	CleanArtifacts func(ctx context.Context, jobID string) error

	// Beat is called by Run's own loop while it looks at the rows and the store
	// answers both a reader and a writer; the first call is after the first
	// look. It must not block. nil is not called.
	Beat func()
	// BeatWithin is the longest time between two beats of a loop that is well;
	// 0 leaves that to Timing.Tick.
	BeatWithin time.Duration

	CreatesPerTemplate int // VMs made from one template at a time; 0 is 4
	StartsAtOnce       int // VMs started at a time; 0 is one for each processor, at least 2
	Timing             Timing
	Log                hclog.Logger // nil logs nothing
}

// Timing are the periods and limits; zero takes the default.
type Timing struct {
	TokenTTL      time.Duration // of a bootstrap token, from power on; 10 min
	CreateTimeout time.Duration // of one CreateVM call; 10 min
	CallTimeout   time.Duration // of any other plugin call; 2 min
	JobStart      time.Duration // from hello to the job's first sign of life; 3 min
	JobGrace      time.Duration // beyond a job's TTL, for its upload; 60 s
	CancelGrace   time.Duration // for a guest to stop by itself; 30 s
	Silence       time.Duration // without a sign of life from a running job; 3 min
	ResumeGrace   time.Duration // after a start of ours, before a passed deadline counts; 60 s
	StopGrace     time.Duration // for a guest to shut down; 30 s
	CheckVM       time.Duration // between looks at a VM that is waited for; 15 s
	Tick          time.Duration // between looks at the rows without a wake; 5 s
	Sweep         time.Duration // between comparisons of rows and VMs; 1 min
	NetworkWatch  time.Duration // between comparisons of policies and what is in force; 10 s
	RetryFirst    time.Duration // pause before a second attempt, doubled for each further one; 500 ms
	RetryMost     time.Duration // longest such pause; 1 min
	AfterJob      time.Duration // least lease of a sandbox that stays after its job; 24 h
	EventsKept    time.Duration // age at which events are removed; 30 days
}

func (t Timing) withDefaults() Timing {
	return Timing{
		TokenTTL:      cmp.Or(t.TokenTTL, 10*time.Minute),
		CreateTimeout: cmp.Or(t.CreateTimeout, 10*time.Minute),
		CallTimeout:   cmp.Or(t.CallTimeout, 2*time.Minute),
		JobStart:      cmp.Or(t.JobStart, 3*time.Minute),
		JobGrace:      cmp.Or(t.JobGrace, time.Minute),
		CancelGrace:   cmp.Or(t.CancelGrace, 30*time.Second),
		Silence:       cmp.Or(t.Silence, 3*time.Minute),
		ResumeGrace:   cmp.Or(t.ResumeGrace, time.Minute),
		StopGrace:     cmp.Or(t.StopGrace, 30*time.Second),
		CheckVM:       cmp.Or(t.CheckVM, 15*time.Second),
		Tick:          cmp.Or(t.Tick, 5*time.Second),
		Sweep:         cmp.Or(t.Sweep, time.Minute),
		NetworkWatch:  cmp.Or(t.NetworkWatch, 10*time.Second),
		RetryFirst:    cmp.Or(t.RetryFirst, 500*time.Millisecond),
		RetryMost:     cmp.Or(t.RetryMost, time.Minute),
		AfterJob:      cmp.Or(t.AfterJob, 24*time.Hour),
		EventsKept:    cmp.Or(t.EventsKept, 30*24*time.Hour),
	}
}

func (c Config) withDefaults() Config {
	c.Timing = c.Timing.withDefaults()
	if c.BeatWithin > 0 {
		c.Timing.Tick = min(c.Timing.Tick, c.BeatWithin/2)
	}
	if c.Beat == nil {
		c.Beat = func() {}
	}
	c.CreatesPerTemplate = cmp.Or(c.CreatesPerTemplate, 4)
	c.StartsAtOnce = cmp.Or(c.StartsAtOnce, max(runtime.NumCPU(), 2))
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	c.Log = c.Log.Named("scheduler")
	if c.RenderSeed == nil {
		c.RenderSeed = renderSeed
	}
	if c.ArtifactJobs == nil {
		c.ArtifactJobs = func(context.Context) ([]string, error) { return nil, nil }
	}
	if c.CleanRepo == nil {
		c.CleanRepo = func(context.Context, string) error { return nil }
	}
	return c
}

func renderSeed(in SeedInput) (hypervisor.Seed, error) {
	d, err := seed.Render(in)
	return hypervisor.Seed{UserData: d.UserData, MetaData: d.MetaData, NetworkConfig: d.NetworkConfig}, err
}
