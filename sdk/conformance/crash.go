package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/launch"
)

// moments are the parts of a call's usual time after which its process is
// killed.
var moments = []float64{0, 0.1, 0.25, 0.5, 0.75, 0.95}

// crashing is the state of one check that kills processes: they are started one
// by one, each after the end of the one before.
type crashing[D any] struct {
	Binary
	client func(*launch.Process) D
}

// with runs fn against a process of its own.
func (c *crashing[D]) with(ctx context.Context, fn func(D) error) error {
	p, _, done, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer done()
	return fn(c.client(p))
}

// killed begins a call and kills its process after a while, or when the call
// gives a sign.
func (c *crashing[D]) killed(ctx context.Context, after time.Duration, call func(d D, sign func()) error) error {
	p, _, done, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer done()
	over, signed := make(chan struct{}), make(chan struct{}, 1)
	go func() {
		defer close(over)
		_ = call(c.client(p), func() { // that it may fail is the point
			select {
			case signed <- struct{}{}:
			default:
			}
		})
	}()
	select {
	case <-time.After(after):
	case <-signed:
	case <-over:
	}
	if err := unix.Kill(p.PID(), unix.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", p.PID(), err)
	}
	<-over
	<-p.Done()
	return nil
}

// atEachMoment measures a call, then does around for each moment of it.
func atEachMoment(took time.Duration, around func(after time.Duration) error) error {
	for _, part := range moments {
		after := time.Duration(part * float64(took))
		if err := around(after); err != nil {
			return fmt.Errorf("killed after %s of about %s: %w", after.Round(time.Microsecond), took.Round(time.Microsecond), err)
		}
	}
	return nil
}

// time measures a call on a process of its own.
func (c *crashing[D]) time(ctx context.Context, call func(D) error) (took time.Duration, err error) {
	err = c.with(ctx, func(d D) error {
		start := time.Now()
		err := call(d)
		took = time.Since(start)
		return err
	})
	return took, err
}

// withTools runs fn with the names of the plugin's tools.
func (c *crashing[D]) withTools(ctx context.Context, fn func(names []string) error) error {
	p, _, done, err := c.start(ctx)
	if err != nil {
		return err
	}
	names, err := (&lasting{c.Binary, p, p.Conn()}).tools(ctx)
	done()
	if err != nil {
		return err
	}
	return fn(names)
}

// errFailed marks a call that failed as it may.
var errFailed = errors.New("failed as it may")

func errIf(err, mark error) error {
	if err != nil {
		return mark
	}
	return nil
}
