package driver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// headStart is what a VM that has started gets of the host before the next spare is
	// made: it is never busier than then.
	headStart  = 2 * time.Second
	retrySpare = time.Minute
	// lookAgain is how long a spare may have ended before another is made.
	lookAgain = time.Minute
)

// spares are those that wait, and what makes more of them.
type spares struct {
	mu sync.Mutex
	// mu guards:
	waiting []*spare                    // the oldest first
	wanted  string                      // key of the template that VMs started from last
	fill    func(context.Context) error // has as many wait as are wanted; nil for nothing to do
	failed  map[string]spareFailure     // by key
	stop    context.CancelFunc          // not nil while they are tended
	starts  int                         // of VMs, that are going on
	ended   time.Time                   // when the last of them did
	closed  bool

	wake    chan struct{} // there is something to do
	running sync.WaitGroup
}

func newSpares() *spares {
	return &spares{failed: map[string]spareFailure{}, wake: make(chan struct{}, 1)}
}

// spareFailure is why none could be made.
type spareFailure struct {
	err error
	at  time.Time
}

// tooEarly reports whether it would only be so again. A guest that cannot rehearse will
// not learn it; memory may be free soon.
func (f spareFailure) tooEarly() bool {
	wait := retrySpare
	if errors.Is(f.err, fault.Unsupported) {
		wait = retryFailed
	}
	return f.err != nil && time.Since(f.at) < wait
}

// waits reports whether one waits that goes on from the template.
func (s *spares) waits(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first(key) >= 0
}

// take gives one that goes on from the template, nil when none waits.
func (s *spares) take(key string) *spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.first(key)
	if at < 0 {
		return nil
	}
	out := s.waiting[at]
	s.waiting = slices.Delete(s.waiting, at, at+1)
	return out
}

// first is where the oldest of the template is, below 0 for none. Caller holds mu.
func (s *spares) first(key string) int {
	return slices.IndexFunc(s.waiting, func(w *spare) bool { return w.key == key })
}

// put has one wait, unless nobody will come for it.
func (s *spares) put(one *spare) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.wanted != one.key {
		return false
	}
	s.waiting = append(s.waiting, one)
	return true
}

// lacks reports whether there are fewer than n of the template.
func (s *spares) lacks(key string, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.wanted == key && len(s.of(key)) < n
}

// of gives those of the template that can become a VM. Caller holds mu.
func (s *spares) of(key string) (out []*spare) {
	for _, w := range s.waiting {
		if w.key == key && w.lives() {
			out = append(out, w)
		}
	}
	return out
}

// useless takes those out that are of another template than the one that is wanted, and
// those that have ended.
func (s *spares) useless() []*spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(func(w *spare) bool { return w.key != s.wanted || !w.lives() })
}

// remove takes out those for which it holds. Caller holds mu.
func (s *spares) remove(which func(*spare) bool) (out []*spare) {
	s.waiting = slices.DeleteFunc(s.waiting, func(w *spare) bool {
		if !which(w) {
			return false
		}
		out = append(out, w)
		return true
	})
	return out
}

// drop has no more made of a template, and takes out those that wait.
func (s *spares) drop(key string) []*spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted == key {
		s.wanted, s.fill = "", nil
	}
	return s.remove(func(w *spare) bool { return w.key == key })
}

// begin has fill run for a template, now and whenever one may have ended since, unless
// it failed lately.
func (s *spares) begin(ctx context.Context, key string, fill func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.wanted, s.fill = key, fill
	if s.stop == nil {
		ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
		s.running.Go(func() { s.tend(ctx) })
	}
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (s *spares) tend(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-time.After(lookAgain):
		}
		s.look(ctx)
	}
}

// look makes what is missing.
func (s *spares) look(ctx context.Context) {
	s.mu.Lock()
	key, fill, failed := s.wanted, s.fill, s.failed[s.wanted]
	s.mu.Unlock()
	if fill == nil || failed.tooEarly() {
		return
	}
	if err := fill(ctx); ctx.Err() == nil {
		s.note(key, err)
	}
}

// note remembers how the last one of the template fared.
func (s *spares) note(key string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failed, key)
		return
	}
	s.failed[key] = spareFailure{err, time.Now()}
}

// fails reports whether the last one of the template could not be made.
func (s *spares) fails(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed[key].err != nil
}

// starting notes a start of a VM.
func (s *spares) starting() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.starts--
		s.ended = time.Now()
	}
}

// quiet waits until no VM has been starting for a while: somebody waits for that.
func (s *spares) quiet(ctx context.Context) error {
	for {
		s.mu.Lock()
		wait := headStart - time.Since(s.ended)
		if s.starts > 0 {
			wait = headStart
		}
		s.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// close has no more made and gives those that wait.
func (s *spares) close() []*spare {
	s.mu.Lock()
	s.closed = true
	if s.stop != nil {
		s.stop()
	}
	s.mu.Unlock()
	s.running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(func(*spare) bool { return true })
}

// state tells how many wait, whether any template's are wanted, and why no more wait.
func (s *spares) state() (waiting int, wanted bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.of(s.wanted)), s.wanted != "", s.failed[s.wanted].err
}
