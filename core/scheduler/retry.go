package scheduler

import (
	"math/rand/v2"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// retries says how many attempts a step has for each class of failure; one for
// a class that is not listed.
type retries map[fault.Class]int

var (
	// modest fits calls that a person waits for.
	modest = retries{fault.Unavailable: 8, fault.Locked: 8, fault.Timeout: 3, fault.Conflict: 3}
	// patient fits calls that free something: giving up leaks it.
	patient = retries{
		fault.Unavailable: 1000, fault.Locked: 1000, fault.Timeout: 1000,
		fault.Conflict: 20, fault.Exhausted: 20, fault.Internal: 10,
	}
)

func (r retries) again(err error, attempt int) bool { return attempt < r[fault.ClassOf(err)] }

// backoff is the pause after the given attempt: doubled each time, between half
// and all of it at random so that a burst of failures does not come back as one.
func (s *Scheduler) backoff(attempt int) time.Duration {
	pause := s.cfg.Timing.RetryMost
	if attempt < 20 {
		pause = min(pause, s.cfg.Timing.RetryFirst<<(max(attempt, 1)-1))
	}
	return pause/2 + rand.N(pause/2+1)
}
