package scheduler

import (
	"context"
	"errors"
	"sync"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

var errDead = errors.New("this life of the daemon is over")

// crasher ends one life of the daemon before or after one of its effects: from
// then on nothing it does reaches the store or the world.
type crasher struct {
	kill func()

	mu sync.Mutex
	// mu guards:
	left int // effects until the end; negative is never
	dead bool
	seen int
}

// around does f, unless the end comes before it, and hides its result when the
// end comes after.
func (c *crasher) around(f func() error) error {
	if c.point() {
		return errDead
	}
	err := f()
	if c.point() {
		return errDead
	}
	return err
}

func (c *crasher) point() (dead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return true
	}
	c.seen++
	if c.left < 0 {
		return false
	}
	if c.left == 0 {
		c.dead = true
		c.kill()
		return true
	}
	c.left--
	return false
}

// mortalStore is the store as one life of the daemon writes it.
type mortalStore struct {
	Store
	crash *crasher
}

func (s mortalStore) Commit(ctx context.Context, c state.Commit) error {
	return s.crash.around(func() error { return s.Store.Commit(ctx, c) })
}

func (s mortalStore) AppendEvent(ctx context.Context, e lab.Event) error {
	return s.crash.around(func() error { return s.Store.AppendEvent(ctx, e) })
}

func (s mortalStore) Reserve(ctx context.Context, id string, r state.Range) (sb lab.Sandbox, err error) {
	err = s.crash.around(func() error {
		sb, err = s.Store.Reserve(ctx, id, r)
		return err
	})
	return sb, err
}

func (s mortalStore) BurnVMID(ctx context.Context, b state.Burn) error {
	return s.crash.around(func() error { return s.Store.BurnVMID(ctx, b) })
}
