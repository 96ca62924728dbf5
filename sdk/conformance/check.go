package conformance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrSkipped marks a check that does not apply.
var ErrSkipped = errors.New("not checked")

const (
	checkTimeout   = 5 * time.Minute
	cleanUpTimeout = 2 * time.Minute
)

// T is what of *testing.T is used; S is T itself.
type T[S any] interface {
	Helper()
	Context() context.Context
	Fatal(args ...any)
	Skip(args ...any)
	TempDir() string
	Run(name string, f func(S)) bool
}

// Run runs every check as a subtest.
func Run[S T[S]](t S, checks []Check) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.Name(), func(t S) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), checkTimeout)
			defer cancel()
			switch err := c.Run(ctx); {
			case errors.Is(err, ErrSkipped):
				t.Skip("needs " + needed(err))
			case err != nil:
				t.Fatal(explain(c.Rule, err))
			}
		})
	}
}

// needed is what a check that was skipped would need.
func needed(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), ErrSkipped.Error()), ": ")
}

// Open gives a driver for one check; done ends what is behind it. What was made
// through one driver must be there through the next, also when the first has
// ended.
type Open[D any] func(ctx context.Context) (driver D, done func(), err error)

// opened is a driver in use.
type opened[D any] struct {
	open   Open[D]
	driver D
	done   func()
}

func (o Open[D]) first(ctx context.Context) (*opened[D], error) {
	d, done, err := o(ctx)
	if err != nil {
		return nil, fmt.Errorf("open driver: %w", err)
	}
	return &opened[D]{o, d, done}, nil
}

func (o *opened[D]) close() { o.done() }

// succeed ends the driver before it opens the next one, which is killed at its
// own end where it is a process.
func (o *opened[D]) succeed(ctx context.Context) error {
	o.done()
	o.done = func() {}
	next, err := o.open.first(context.WithValue(ctx, toBeKilled{}, true))
	if err != nil {
		return fmt.Errorf("after the first process: %w", err)
	}
	*o = *next
	return nil
}

// successors runs fn against a driver whose predecessor was asked to end, and
// one whose predecessor was killed.
func (o *opened[D]) successors(ctx context.Context, fn func(D) error) error {
	for _, how := range []string{"ended", "was killed"} {
		if err := o.succeed(ctx); err != nil {
			return err
		}
		if err := fn(o.driver); err != nil {
			return fmt.Errorf("after its process %s: %w", how, err)
		}
	}
	return nil
}

// toBeKilled marks the context of an Open whose process gets no chance to clean
// up at its end.
type toBeKilled struct{}

// Local always gives the same driver.
func Local[D any](d D) Open[D] {
	return func(context.Context) (D, func(), error) { return d, func() {}, nil }
}

// Effects counts the real changes to the world so far. A suite that gets one
// checks that a repeated call changes nothing.
type Effects func(ctx context.Context) (int, error)

// unchanged runs fn and fails when it had an effect.
func (e Effects) unchanged(ctx context.Context, what string, fn func() error) error {
	if e == nil {
		return fn()
	}
	before, err := e(ctx)
	if err != nil {
		return fmt.Errorf("count effects: %w", err)
	}
	if err := fn(); err != nil {
		return err
	}
	after, err := e(ctx)
	if err != nil {
		return fmt.Errorf("count effects: %w", err)
	}
	if after != before {
		return saw("%s made %d changes", what, after-before).want("none")
	}
	return nil
}

// unique is a name part that no other run uses.
func unique() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
