package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// spare is a guest that goes on from a memory template already, has rehearsed what it
// will have to do, and waits, paused, for a VM to become. It has neither an identity nor
// a network. The process that made it has it alone, and ends it at its own end.
type spare struct {
	key     string      // of its memory template
	base    os.FileInfo // the disk of that
	dir     record.SpareDir
	program *spawn.Program
	tap     *os.File // QEMU has it too
}

// tenant says which programs are the spare's.
func (s *spare) tenant() tenant { return tenantOf(s.dir.Note) }

func tenantOf(n record.Spare) tenant {
	t := tenant{uid: n.UID, mark: n.Mark, spare: true}
	if n.PID != 0 {
		t.noted, t.alone = &procfs.Identity{PID: n.PID, StartTicks: n.StartTicks, UID: n.UID}, true
	}
	return t
}

// spares are those that wait, and the one that is in the making.
type spares struct {
	mu sync.Mutex
	// mu guards:
	waiting []*spare                    // the oldest first
	wanted  string                      // key of the template that VMs started from last
	next    func(context.Context) error // has as many wait as are wanted; nil for nothing to do
	failed  map[string]spareFailure     // by key
	making  context.CancelFunc          // not nil while some are made
	starts  int                         // of VMs, that are going on
	ended   time.Time                   // when the last of them did
	closed  bool

	running sync.WaitGroup
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

// take gives one that goes on from the template, nil when none waits.
func (s *spares) take(key string) *spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.waiting, func(w *spare) bool { return w.key == key })
	if at < 0 {
		return nil
	}
	out := s.waiting[at]
	s.waiting = slices.Delete(s.waiting, at, at+1)
	return out
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
	have := 0
	for _, w := range s.waiting {
		if w.key == key {
			have++
		}
	}
	return !s.closed && s.wanted == key && have < n
}

// others takes those out that are of another template, or all for "".
func (s *spares) others(key string) []*spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*spare
	s.waiting = slices.DeleteFunc(s.waiting, func(w *spare) bool {
		if key != "" && w.key == key {
			return false
		}
		out = append(out, w)
		return true
	})
	return out
}

// of takes those of a template out.
func (s *spares) of(key string) []*spare {
	var out []*spare
	for one := s.take(key); one != nil; one = s.take(key) {
		out = append(out, one)
	}
	return out
}

// begin has fill run for a template, after what runs already, unless it failed lately.
func (s *spares) begin(ctx context.Context, key string, fill func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted, s.next = key, nil
	if s.closed || s.failed[key].tooEarly() {
		return
	}
	s.next = fill
	if s.making != nil {
		return
	}
	ctx, s.making = context.WithCancel(context.WithoutCancel(ctx))
	s.running.Go(func() { s.fill(ctx) })
}

// fill runs what is to be run, until there is no more of it.
func (s *spares) fill(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.next != nil && ctx.Err() == nil {
		key, fill := s.wanted, s.next
		s.next = nil
		s.mu.Unlock()
		err := fill(ctx)
		s.mu.Lock()
		if ctx.Err() == nil {
			s.note(key, err)
		}
	}
	s.making()
	s.making = nil
}

// note remembers how the last one of the template fared. Caller holds mu.
func (s *spares) note(key string, err error) {
	if err == nil {
		delete(s.failed, key)
		return
	}
	if s.failed == nil {
		s.failed = map[string]spareFailure{}
	}
	s.failed[key] = spareFailure{err, time.Now()}
}

// fails remembers that one did not become a VM.
func (s *spares) fails(key string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(key, err)
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
	if s.making != nil {
		s.making()
	}
	s.mu.Unlock()
	s.running.Wait()
	return s.others("")
}

// state tells how many wait, and why no more do.
func (s *spares) state() (waiting int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waiting {
		if w.key == s.wanted {
			waiting++
		}
	}
	return waiting, s.failed[s.wanted].err
}

// endSpares ends spares whom nobody will want. It is best effort: what is left is ended
// when a plugin starts on this state folder.
func (d *Driver) endSpares(ctx context.Context, all []*spare) {
	var ending sync.WaitGroup
	for _, s := range all {
		ending.Go(func() {
			if err := d.endSpare(ctx, s); err != nil {
				plugin.Log(ctx, d.log).Warn("spare guest was not ended", "uid", s.dir.Note.UID, "err", err)
			}
		})
	}
	ending.Wait()
}

func (d *Driver) endSpare(ctx context.Context, s *spare) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if s.program != nil {
		s.program.Close()
	}
	if s.tap != nil {
		_ = s.tap.Close()
	}
	if err := d.kill(ctx, s.tenant()); err != nil {
		s.dir.Close()
		return err
	}
	return s.dir.Remove()
}

// sparesFinding says how many spares wait.
func (d *Driver) sparesFinding() plugin.Finding {
	f := plugin.Finding{ID: "spares", Level: plugin.LevelOK}
	if d.cfg.Spares == 0 {
		f.Message = "not wanted: spares is 0, so every VM starts its own guest"
		return f
	}
	waiting, failed := d.spares.state()
	f.Message = fmt.Sprintf("%d of %d spare guests wait", waiting, d.cfg.Spares)
	if failed != nil {
		f.Level, f.Fix = plugin.LevelWarning, fault.HintOf(failed)
		f.Message += ", because the next could not be made: " + failed.Error()
	}
	return f
}

// tidySpares ends those that a killed plugin has left.
func (d *Driver) tidySpares(ctx context.Context) error {
	left, err := d.store.LostSpares(ctx)
	for _, dir := range left {
		if bad := d.endLost(ctx, dir.Note); bad != nil {
			err = errors.Join(err, bad)
			dir.Close()
			continue
		}
		err = errors.Join(err, dir.Remove())
	}
	return err
}

func (d *Driver) endLost(ctx context.Context, n record.Spare) error {
	if n.BootID != d.bootID || n.Mark == "" {
		return nil
	}
	// Where a VM has the user by now, its record names the program, too: it is for the
	// VM's next call to end it, or to go on with it.
	vm, err := d.neighbour(0, n.UID)
	if err != nil || vm != 0 {
		return err
	}
	return d.kill(ctx, tenantOf(n))
}
