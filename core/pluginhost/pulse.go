package pluginhost

import "time"

// How a plugin's health is followed.
const (
	healthInterval = 10 * time.Second
	// unwellInterval is for a plugin that is not ready, so that its recovery or
	// its end is seen soon.
	unwellInterval = time.Second
	healthTimeout  = 2 * time.Second
	lastMoment     = 100 * time.Millisecond // of healthTimeout, in which both sides may end the call
	// A process hangs when this many checks in a row got no answer, over at
	// least this time.
	missesAllowed  = 4
	silenceAllowed = 10 * time.Second
)

// pulse counts unanswered checks of a process.
type pulse struct {
	misses int
	since  time.Time // begin of the first of them
}

// beat takes note of a check that began at began and ended at now, and reports
// whether the process hangs.
func (p *pulse) beat(began, now time.Time, answered bool) (hangs bool) {
	if answered {
		*p = pulse{}
		return false
	}
	if p.misses == 0 {
		p.since = began
	}
	p.misses++
	return p.misses >= missesAllowed && now.Sub(p.since) >= silenceAllowed
}

// next is the pause before the next check.
func (p *pulse) next(state State) time.Duration {
	if state == Ready {
		return healthInterval
	}
	return unwellInterval
}
