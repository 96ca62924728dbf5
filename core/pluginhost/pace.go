package pluginhost

import (
	"fmt"
	"time"
)

// Pauses before a plugin is started again, and when it is given up for a while.
const (
	firstPause      = 500 * time.Millisecond
	lastPause       = 30 * time.Second
	steadyAfter     = time.Minute // a process that ran this long makes the next start free
	crashesAllowed  = 5           // within crashWindow; the last of them brings the quarantine
	crashWindow     = 5 * time.Minute
	firstProbePause = 15 * time.Second
	lastProbePause  = 5 * time.Minute
	healedAfter     = 30 * time.Second // a probe that is well this long ends the quarantine
)

// fall is how a plugin went down.
type fall int

const (
	crashed fall = iota // a process ended by itself, was killed for not answering, or did not come up
	refused             // it could not be started or configured, and nothing broke
	wrong               // its configuration is wrong
)

// pace decides when a plugin that went down is started again. It knows no clock
// and no chance.
type pace struct {
	streak  int         // starts in a row that did not last
	crashes []time.Time // within crashWindow, oldest first
	probes  int         // above 0: in quarantine, the number of the next probe
}

// verdict is what happens next.
type verdict struct {
	state State
	pause time.Duration
	why   string // beside the reason of the last fall
}

// fell takes note of a fall at now, of a process that served for lasted. chance
// is from 0 to 1, so that plugins which fell together do not start together.
func (p *pace) fell(now time.Time, how fall, lasted time.Duration, chance float64) verdict {
	if how == wrong {
		return verdict{state: Failed}
	}
	if lasted >= steadyAfter {
		p.streak = 0
	}
	p.streak++
	if how == crashed {
		p.crashes = append(p.crashes, now)
	}
	for len(p.crashes) > 0 && now.Sub(p.crashes[0]) > crashWindow {
		p.crashes = p.crashes[1:]
	}
	jitter := func(d time.Duration) time.Duration { return d/2 + time.Duration(chance*float64(d/2)) }
	if p.probes > 0 || len(p.crashes) >= crashesAllowed {
		why := fmt.Sprintf("%d crashes within %s", len(p.crashes), brief(crashWindow))
		if p.probes > 0 {
			why = fmt.Sprintf("too many crashes, then %d tries", p.probes)
		}
		p.probes++
		return verdict{state: Quarantined, pause: jitter(doubled(firstProbePause, p.probes-1, lastProbePause)), why: why}
	}
	n := p.streak - 1
	if lasted == 0 {
		n++ // what did not even come up will hardly do so now
	}
	if n == 0 {
		return verdict{state: Starting}
	}
	return verdict{state: Backoff, pause: jitter(doubled(firstPause, n-1, lastPause))}
}

// probation is how long a process that came up has to be well before healed is
// due; 0 when it need not.
func (p *pace) probation() time.Duration {
	if p.probes > 0 {
		return healedAfter
	}
	return 0
}

// healed ends a quarantine.
func (p *pace) healed() { *p = pace{} }

func doubled(first time.Duration, times int, most time.Duration) time.Duration {
	if times > 20 {
		return most
	}
	return min(first<<times, most)
}
