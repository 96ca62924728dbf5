package scheduler

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	storePause = time.Second      // of a worker when the store itself fails
	clockStep  = 30 * time.Second // between two looks at the clock: nobody looked in between
)

// Scheduler drives operations. Its submitting methods may be called at any
// time, also while Run is not.
type Scheduler struct {
	cfg     Config
	log     hclog.Logger
	kinds   map[lab.OperationKind]kind
	limits  limits
	wake    chan struct{}
	workers sync.WaitGroup
	seen    reported
	// attaching is held for writing while a policy is restored.
	attaching sync.RWMutex

	mu sync.Mutex
	// mu guards:
	heard    time.Time           // since when guests can be, see resumed
	looked   time.Time           // at the clock, last
	failed   time.Time           // the last write of the store that we know of
	claimed  map[string]struct{} // subjects that somebody works on
	host     hypervisor.HostReport
	applied  bool             // the host's side of the network, by us
	findings []plugin.Finding // about it, as told last
	hostAt   time.Time
}

// New makes a scheduler; Run makes it work.
func New(cfg Config) *Scheduler {
	cfg = cfg.withDefaults()
	s := &Scheduler{
		cfg:     cfg,
		log:     cfg.Log,
		wake:    make(chan struct{}, 1),
		claimed: map[string]struct{}{},
	}
	s.kinds = map[lab.OperationKind]kind{
		lab.OpCreateSandbox:  s.createSandbox(),
		lab.OpRunJob:         s.runJob(),
		lab.OpDestroySandbox: s.destroySandbox(),
	}
	return s
}

// Run resumes all open operations and drives new ones until ctx ends. It
// returns when every worker has stopped; a step that was cut off is called
// again by the next Run.
func (s *Scheduler) Run(ctx context.Context) error {
	s.mu.Lock()
	s.heard = time.Now()
	s.looked = s.heard
	s.mu.Unlock()
	s.workers.Go(func() { s.keep(ctx) })
	s.workers.Go(func() { s.watchNetwork(ctx) })
	defer s.workers.Wait()
	tick := time.NewTicker(s.cfg.Timing.Tick)
	defer tick.Stop()
	var beat time.Time
	for {
		err := s.dispatch(ctx)
		if err == nil {
			beat, err = s.beat(ctx, beat)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("look at the rows", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
	}
}

// beat says that the loop lives, unless it has just done so. It counts only when
// the store lets a writer begin: one that can merely be read does no work.
func (s *Scheduler) beat(ctx context.Context, last time.Time) (time.Time, error) {
	if time.Since(last) < s.cfg.Timing.Tick/2 {
		return last, nil
	}
	if err := s.cfg.Store.Ping(ctx); err != nil {
		return last, err
	}
	s.cfg.Beat()
	return time.Now(), nil
}

// Steps names the steps of a kind of operation, in their order.
func (s *Scheduler) Steps(kind lab.OperationKind) []string {
	var names []string
	for _, st := range s.kinds[kind].steps {
		names = append(names, st.name)
	}
	return names
}

// Wake makes Run look for new operations now.
func (s *Scheduler) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dispatch starts a worker for each subject that has open operations and none.
func (s *Scheduler) dispatch(ctx context.Context) error {
	s.resumed() // looks at the clock also while nobody waits for a guest
	open, err := s.cfg.Store.Operations(ctx, state.OperationFilter{Open: true})
	if err != nil {
		return err
	}
	for _, op := range open {
		if ctx.Err() == nil && s.claim(op.Subject) {
			s.workers.Go(func() { s.work(ctx, op.Subject) })
		}
	}
	return nil
}

// claim makes the caller the only one who works on the subject until release.
func (s *Scheduler) claim(subject string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.claimed[subject]; taken {
		return false
	}
	s.claimed[subject] = struct{}{}
	return true
}

// release also wakes Run: an operation may have come while nobody looked.
func (s *Scheduler) release(subject string) {
	s.mu.Lock()
	delete(s.claimed, subject)
	s.mu.Unlock()
	s.Wake()
}

// work drives the subject's operations, oldest first, until none is open.
func (s *Scheduler) work(ctx context.Context, subject string) {
	defer s.release(subject)
	for ctx.Err() == nil {
		open, err := s.cfg.Store.Operations(ctx, state.OperationFilter{Subject: subject, Open: true})
		if err == nil && len(open) == 0 {
			return
		}
		if err == nil {
			err = s.drive(ctx, open[0])
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("drive operation", "sandbox", subject, "err", err)
			sleep(ctx, storePause)
		}
	}
}

// resumed is when the grace ends in which guests are to be heard again: after our
// own start, after the clock jumped or the host slept, and after the store could
// not write their signs of life. What fell due meanwhile does not count before.
func (s *Scheduler) resumed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	// The clock that only runs while the host does misses a sleep, the other
	// one may be set; a step of either is looked for.
	step := max(now.Sub(s.looked), now.Round(0).Sub(s.looked.Round(0)).Abs())
	if step > max(clockStep, 2*s.cfg.Timing.Tick) {
		s.log.Warn("the clock jumped or the host slept, guests get time to be heard", "took", step)
		s.heard = now
	}
	if failed := s.cfg.Store.WriteFailed(); !failed.Equal(s.failed) {
		s.failed, s.heard = failed, now
	}
	s.looked = now
	return s.heard.Add(s.cfg.Timing.ResumeGrace)
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
