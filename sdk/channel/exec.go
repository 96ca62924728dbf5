package channel

import (
	"context"
	"fmt"
	"io"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Exec runs a program as root in the guest and returns its exit code, 128 and
// more for one that a signal ended. Output is written as it comes; a writer that
// fails ends the program, and so do the end of ctx and Close, with all its
// children. Exec has no deadline of its own. A Read of stdin that is under way
// when the program has ended is not waited for. fault.NotFound: the guest has no
// such program.
func (h *Host) Exec(ctx context.Context, e Exec, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if len(e.Argv) == 0 || e.Argv[0] == "" {
		return 0, fault.New(fault.Invalid, "there is no program to run")
	}
	code, err := h.exec(ctx, e, stdin, map[kind]io.Writer{kindStdout: stdout, kindStderr: stderr})
	if err != nil {
		return 0, fmt.Errorf("run program in guest: %w", err)
	}
	return code, nil
}

func (h *Host) exec(ctx context.Context, e Exec, stdin io.Reader, out map[kind]io.Writer) (int, error) {
	c, id, err := h.begin(ctx, kindExec, e)
	if err != nil {
		return 0, err
	}
	defer h.forget(id)
	feeding, stop := context.WithCancel(ctx)
	defer stop()
	go h.feed(feeding, c, id, stdin)
	answer, err := h.pass(ctx, c, id, out)
	if err != nil {
		h.cancel(ctx, id)
		return 0, err
	}
	var r execReply
	err = settle(answer, &r)
	return r.Code, err
}

// pass hands output on until the answer comes.
func (h *Host) pass(ctx context.Context, c *call, id uint64, out map[kind]io.Writer) (message, error) {
	for {
		var m message
		select {
		case m = <-c.incoming:
		case <-c.lost:
			return m, c.why
		case <-ctx.Done():
			return m, ended(ctx)
		}
		w, isOutput := out[m.Kind]
		if !isOutput {
			return m, nil
		}
		if w != nil {
			if _, err := w.Write(m.Data); err != nil {
				return m, fmt.Errorf("pass output on: %w", err)
			}
		}
		if err := h.send(ctx, message{Call: id, Kind: kindTook}); err != nil {
			return m, err
		}
	}
}

// feed sends the program's input until it ends, or the call does.
func (h *Host) feed(ctx context.Context, c *call, id uint64, stdin io.Reader) {
	if stdin == nil {
		_ = h.send(ctx, message{Call: id, Kind: kindStdin})
		return
	}
	credit := window
	buf := make([]byte, chunkBytes)
	for {
		n, err := stdin.Read(buf)
		if n > 0 {
			if credit == 0 {
				select {
				case <-c.took:
					credit++
				case <-c.lost:
					return
				case <-ctx.Done():
					return
				}
			}
			credit--
			if h.send(ctx, message{Call: id, Kind: kindStdin, Data: buf[:n]}) != nil {
				return // the call learns of it, too
			}
		}
		for more := true; more; {
			select {
			case <-c.took:
				credit++
			default:
				more = false
			}
		}
		if err != nil {
			_ = h.send(ctx, message{Call: id, Kind: kindStdin})
			return
		}
	}
}

// outflow is one output of a program in the guest.
type outflow struct {
	call *served
	kind kind
}

// Write sends p in chunks, each when the host has room for it.
func (o outflow) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, chunkBytes)
		select {
		case o.call.room <- struct{}{}:
		case <-o.call.ctx.Done():
			return done, o.call.ctx.Err()
		}
		if err := o.call.send(message{Kind: o.kind, Data: p[done : done+n]}); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// inflow is the input of a program in the guest.
type inflow struct {
	call *served
	rest []byte
}

// Read gives what the host sent, and io.EOF where that ends or the call is over.
func (i *inflow) Read(p []byte) (int, error) {
	if len(i.rest) == 0 {
		select {
		case chunk := <-i.call.input:
			if len(chunk) == 0 {
				i.call.endInput()
				return 0, io.EOF
			}
			i.rest = chunk
		case <-i.call.ended:
			return 0, io.EOF
		case <-i.call.ctx.Done():
			return 0, io.EOF
		}
		if err := i.call.send(message{Kind: kindTook}); err != nil {
			return 0, err
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}
