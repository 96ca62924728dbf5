package launch

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
)

// stream is one streaming call over the attempts that it takes. As gRPC wants
// it, one goroutine sends and one receives; only after the last message was
// sent is it begun again.
type stream struct {
	grpc.ClientStream // of the present attempt

	line     *Line
	contract contract
	ctx      context.Context //nolint:containedctx // a stream lives in its call's
	cancel   context.CancelFunc
	method   string
	begin    func(context.Context, *Attempt) (grpc.ClientStream, error)

	attempt  *Attempt
	n        int
	sent     []any // at most one where it may be begun again
	received bool
	ended    bool
}

// open begins an attempt, and another where the contract allows it.
func (s *stream) open() error {
	for {
		s.n++
		at, err := s.line.Begin(s.ctx, s.method, s.n)
		if err != nil {
			return err
		}
		s.attempt = at
		context.AfterFunc(s.ctx, func() { _ = at.End(context.Cause(s.ctx), false) }) // a caller may just leave
		if s.ClientStream, err = s.begin(s.ctx, at); err == nil {
			return nil
		}
		if again, err := s.over(err); !again {
			return err
		}
	}
}

// over ends the present attempt and reports whether another may follow.
func (s *stream) over(err error) (again bool, cause error) {
	o, err := judge(s.ctx, s.attempt.Process, err)
	told := err
	if errors.Is(err, io.EOF) {
		told = nil
	}
	if told = s.attempt.End(told, o == lost); told != nil {
		err = told
	}
	return told != nil && !s.received && s.contract.again(o, s.n) && rest(s.ctx, o), err
}

// SendMsg sends a message, and keeps it as long as it may be sent again.
func (s *stream) SendMsg(m any) error {
	if s.contract.level != unknown {
		s.sent = append(s.sent, m)
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg gives the next message.
func (s *stream) RecvMsg(m any) error {
	for {
		err := s.ClientStream.RecvMsg(m)
		if err == nil {
			s.received, s.sent = true, nil
			return nil
		}
		if s.ended {
			return err
		}
		again, err := s.over(err)
		if again {
			if err = s.repeat(); err == nil {
				continue
			}
		}
		s.ended = true
		s.cancel()
		return err
	}
}

// repeat begins the call again with what was sent. What breaks while sending
// shows when receiving.
func (s *stream) repeat() error {
	if err := s.open(); err != nil {
		return err
	}
	for _, m := range s.sent {
		_ = s.ClientStream.SendMsg(m)
	}
	_ = s.CloseSend()
	return nil
}
