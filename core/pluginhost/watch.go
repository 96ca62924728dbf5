package pluginhost

import (
	"context"
	"time"
)

// watch follows a process that serves until it falls, which is the error, or ctx ends. When
// it gives neither a process nor an error, the plugin is to be started anew.
func (i *instance) watch(ctx context.Context, up *upProcess) (*upProcess, error) {
	var p pulse
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return up, nil
		case <-up.process.Done():
			return nil, i.fallen(up, up.process.Exit().String())
		case r := <-i.requests:
			if up = i.replace(ctx, up, r); up == nil {
				return nil, nil
			}
			p = pulse{}
			next.Reset(0)
		case <-i.kick:
			next.Reset(0)
		case <-next.C:
			state, hangs := i.check(ctx, up, &p)
			if hangs {
				return nil, i.kill(ctx, up, time.Since(p.since))
			}
			if d := i.pace.probation(); d > 0 && state == Ready && time.Since(up.since) >= d {
				i.pace.healed()
				i.log.Info("plugin is out of quarantine", "plugin", i.label())
			}
			next.Reset(p.next(state))
		}
	}
}

// check asks for the health once.
func (i *instance) check(ctx context.Context, up *upProcess, p *pulse) (state State, hangs bool) {
	began := time.Now()
	asked, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h, err := up.health(asked)
	// The other side may see the deadline first, and end the stream without an answer.
	over := asked.Err() != nil || time.Since(began) >= healthTimeout-lastMoment
	if ctx.Err() != nil || err != nil && up.endedSoon(err) {
		return Degraded, false // watch is about to notice
	}
	state, reason, silent := judge(h, err, over || up.cut(err))
	hangs = p.beat(began, time.Now(), !silent)
	i.become(state, reason)
	return state, hangs
}

// kill ends a process that hangs, with its group.
func (i *instance) kill(ctx context.Context, up *upProcess, silent time.Duration) *downfall {
	now, cancel := context.WithCancel(ctx)
	cancel()
	if err := up.process.Stop(now); err != nil {
		i.log.Error("plugin that hangs stays", "plugin", i.label(), "err", err)
	}
	return i.fallen(up, "killed because it did not answer for "+brief(silent))
}
