package hypervisor

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

// execChunk is the most that one message carries of a stream.
const execChunk = 32 << 10

var _ GuestExecutor = (*Client)(nil)

// Exec is GuestExecutor.Exec. A Stdin that blocks holds up nothing: what is read
// of it after the program's end is lost.
func (c *Client) Exec(ctx context.Context, ref Ref, cmd Command, streams Streams) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Exec(ctx)
	if err != nil {
		return 0, wire.Error(err)
	}
	err = stream.Send(&hypervisorv1.ExecRequest{Message: &hypervisorv1.ExecRequest_Start{
		Start: &hypervisorv1.ExecStart{Ref: refToWire(ref), Argv: cmd.Argv, Env: cmd.Env},
	}})
	if err == nil {
		go sendStdin(stream, streams.Stdin)
	} else if !errors.Is(err, io.EOF) { // io.EOF: the reason comes with the answer
		return 0, wire.Error(err)
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return 0, fault.New(fault.Internal, "plugin ended Exec without an exit code")
		case err != nil:
			return 0, wire.Error(err)
		}
		switch m := m.GetMessage().(type) {
		case *hypervisorv1.ExecResponse_ExitCode:
			return int(m.ExitCode), nil
		case *hypervisorv1.ExecResponse_Stdout:
			err = writeTo(streams.Stdout, m.Stdout)
		case *hypervisorv1.ExecResponse_Stderr:
			err = writeTo(streams.Stderr, m.Stderr)
		}
		if err != nil {
			return 0, fault.New(fault.Unavailable, "pass on what the program printed: %w", err)
		}
	}
}

func sendStdin(stream grpc.BidiStreamingClient[hypervisorv1.ExecRequest, hypervisorv1.ExecResponse], stdin io.Reader) {
	buf := make([]byte, execChunk)
	for stdin != nil {
		n, err := stdin.Read(buf)
		if n > 0 {
			message := &hypervisorv1.ExecRequest_Stdin{Stdin: buf[:n]}
			if stream.Send(&hypervisorv1.ExecRequest{Message: message}) != nil {
				return
			}
		}
		if err != nil {
			break // a source that fails has no more to give
		}
	}
	_ = stream.Send(&hypervisorv1.ExecRequest{Message: &hypervisorv1.ExecRequest_CloseStdin{CloseStdin: true}})
	_ = stream.CloseSend()
}

func writeTo(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(b)
	return err
}

func (s *server) Exec(stream grpc.BidiStreamingServer[hypervisorv1.ExecRequest, hypervisorv1.ExecResponse]) error {
	d, err := able[GuestExecutor](s.driver, "runs no programs in guests")
	if err != nil {
		return wire.Status(err)
	}
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	start := first.GetStart()
	if start == nil || len(start.GetArgv()) == 0 {
		return wire.Status(fault.New(fault.Invalid, "the first message of Exec names no program"))
	}
	stdin, feed := io.Pipe()
	defer stdin.Close() // ends receiveStdin where it waits for a reader
	go receiveStdin(stream, feed)
	var mu sync.Mutex // one sender at a time
	out := func(message func([]byte) *hypervisorv1.ExecResponse) io.Writer {
		return writer(func(b []byte) error {
			mu.Lock()
			defer mu.Unlock()
			return stream.Send(message(b))
		})
	}
	code, err := d.Exec(stream.Context(), refFromWire(start.GetRef()), Command{Argv: start.GetArgv(), Env: start.GetEnv()}, Streams{
		Stdin: stdin,
		Stdout: out(func(b []byte) *hypervisorv1.ExecResponse {
			return &hypervisorv1.ExecResponse{Message: &hypervisorv1.ExecResponse_Stdout{Stdout: b}}
		}),
		Stderr: out(func(b []byte) *hypervisorv1.ExecResponse {
			return &hypervisorv1.ExecResponse{Message: &hypervisorv1.ExecResponse_Stderr{Stderr: b}}
		}),
	})
	if err != nil {
		return wire.Status(err)
	}
	return stream.Send(&hypervisorv1.ExecResponse{Message: &hypervisorv1.ExecResponse_ExitCode{ExitCode: int32(code)}})
}

// receiveStdin ends with the call, when the caller closes stdin, and when nobody
// reads any more.
func receiveStdin(stream grpc.BidiStreamingServer[hypervisorv1.ExecRequest, hypervisorv1.ExecResponse], to *io.PipeWriter) {
	defer to.Close()
	for {
		m, err := stream.Recv()
		if err != nil || m.GetCloseStdin() {
			return
		}
		if _, err := to.Write(m.GetStdin()); err != nil {
			return
		}
	}
}

// writer sends in chunks that fit a message.
type writer func([]byte) error

func (w writer) Write(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		n := min(len(b)-sent, execChunk)
		if err := w(b[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}
