package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// fitTimeout bounds what a request waits for the hypervisor plugin's findings.
const fitTimeout = 3 * time.Second

// fit is fault.Precondition while the host lacks something that every VM needs.
// A host that was unfit is looked at anew: somebody may have mended it.
func (s *Scheduler) fit(ctx context.Context) (hypervisor.HostReport, error) {
	host, err := s.hostReport(ctx)
	if err == nil && unfit(host) != nil {
		s.mu.Lock()
		s.hostAt = time.Time{}
		s.mu.Unlock()
		host, err = s.hostReport(ctx)
	}
	if err == nil {
		err = unfit(host)
	}
	return host, err
}

func unfit(host hypervisor.HostReport) error {
	var what, how []string
	for _, f := range host.Findings {
		if f.Level == plugin.LevelMissing {
			what, how = append(what, f.Message), append(how, f.Fix)
		}
	}
	if len(what) == 0 {
		return nil
	}
	return fault.New(fault.Precondition, "this host cannot run sandboxes: %s", strings.Join(what, "; ")).
		WithHint("%s", strings.Join(how, "; "))
}

// refuseUnfit keeps a request from writing rows that could only fail. A plugin
// that does not answer in time keeps nobody: the operation asks it again, and
// host is nil.
func (s *Scheduler) refuseUnfit(ctx context.Context) (host *hypervisor.HostReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, fitTimeout)
	defer cancel()
	report, err := s.fit(ctx)
	switch {
	case errors.Is(err, fault.Precondition):
		return nil, fmt.Errorf("make a sandbox: %w", err)
	case err != nil:
		return nil, nil
	}
	return &report, nil
}
