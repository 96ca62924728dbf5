package stream

import (
	"context"
	"errors"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/sdk/fault"
)

// piece is how much of the log one call carries, in bytes.
const piece = 256 << 10

// gather is how long Ship waits for more output before it sends a small piece.
const gather = 100 * time.Millisecond

// Send brings a piece of the log to the host and tells how much it has.
type Send func(ctx context.Context, offset int64, b []byte) (have int64, err error)

// Ship brings the log to the host until it has ended and the host has all of
// it, or ctx ends. A refused piece because of the quota counts as Exceeded. It
// returns the failure that no repetition helps against.
func (l *Log) Ship(ctx context.Context, send Send) error {
	buf := make([]byte, piece)
	for at := int64(0); ; {
		n, done, err := l.read(at, buf)
		if err != nil {
			return err
		}
		if done {
			return nil
		}
		if n == 0 {
			if err := l.await(ctx); err != nil {
				return err
			}
			continue
		}
		have := at
		err = guestclient.Retry(ctx, nil, func(ctx context.Context) error {
			have, err = send(ctx, at, buf[:n])
			return err
		})
		if errors.Is(err, fault.Exhausted) {
			l.mu.Lock()
			l.setFull()
			l.mu.Unlock()
		}
		if err != nil {
			return err
		}
		if err := l.skipTo(have); err != nil {
			return err
		}
		at = have
	}
}

func (l *Log) await(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.wake:
	}
	l.mu.Lock()
	ended := l.ended
	l.mu.Unlock()
	if ended {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(gather):
	}
	return nil
}
