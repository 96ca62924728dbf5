package jobrun

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/core/guestapi"
)

// refusedFor is how long the host may refuse heartbeats before the job is
// taken to be over for it: it has revoked the credential.
const refusedFor = 30 * time.Second

// pulse tells the host that the job is alive and at which stage, and passes on
// the host's wish to cancel it.
type pulse struct {
	job    string
	every  time.Duration
	host   Host
	cancel func(cause error)
	log    hclog.Logger
	wake   chan struct{}

	mu sync.Mutex
	// mu guards:
	stages []string // begun and not reported yet
}

func newPulse(job string, every time.Duration, host Host, cancel func(cause error), log hclog.Logger) *pulse {
	return &pulse{job: job, every: every, host: host, cancel: cancel, log: log, wake: make(chan struct{}, 1)}
}

// stage notes that a stage begins.
func (p *pulse) stage(name string) {
	p.mu.Lock()
	p.stages = append(p.stages, name)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run beats until ctx ends. What cannot be delivered is tried again with the
// next beat, for as long as the job lasts.
func (p *pulse) run(ctx context.Context) {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	accepted := time.Now()
	for silent := false; ; {
		err := p.beat(ctx)
		if err == nil || !guestclient.Lasting(err) {
			accepted = time.Now()
		} else if time.Since(accepted) > refusedFor {
			p.cancel(errRefused)
		}
		if err != nil && !silent && ctx.Err() == nil {
			p.log.Warn("host does not take the heartbeat", "err", err)
		}
		silent = err != nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.wake:
		}
	}
}

func (p *pulse) beat(ctx context.Context) error {
	for {
		p.mu.Lock()
		report := guestapi.Report{Job: p.job, Kind: guestapi.ReportHeartbeat}
		if len(p.stages) > 0 {
			report.Kind, report.Stage = guestapi.ReportStage, p.stages[0]
		}
		p.mu.Unlock()
		reply, err := p.host.Report(ctx, report)
		if err != nil {
			return err
		}
		if reply.Cancel {
			p.cancel(errCancelled)
		}
		if report.Stage == "" {
			return nil
		}
		p.mu.Lock()
		p.stages = p.stages[1:]
		more := len(p.stages) > 0
		p.mu.Unlock()
		if !more {
			return nil
		}
	}
}
