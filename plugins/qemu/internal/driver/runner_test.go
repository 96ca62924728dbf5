package driver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// runner plays agent-runner in the place of a guest that has none.
type runner struct {
	mu    sync.Mutex
	users []string // mu guards: who uses the disk
}

func (r *runner) use(users ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users = users
}

func (*runner) State() channel.State {
	return channel.State{Phase: channel.PhaseServing, Runner: "test"}
}
func (*runner) Settle(context.Context) error           { return nil }
func (*runner) Rehearse(context.Context, []byte) error { return nil }
func (*runner) Assume(context.Context, channel.Identity) (channel.Assumed, error) {
	return channel.Assumed{}, nil
}

func (*runner) Go(context.Context) error { return nil }

func (r *runner) Busy(_ context.Context, serial string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if serial != "work" {
		return nil, nil
	}
	return r.users, nil
}

// Exec gives back its input, what it was asked for, and the number of arguments;
// "wait" ends with its caller.
func (*runner) Exec(ctx context.Context, e channel.Exec, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if e.Argv[0] == "wait" {
		_, _ = io.WriteString(stdout, "begun")
		<-ctx.Done()
		return 0, ctx.Err()
	}
	_, err := io.Copy(stdout, stdin)
	if err == nil {
		_, err = io.WriteString(stderr, strings.Join(e.Env, " "))
	}
	return len(e.Argv), err
}

// impersonate answers on the VM's channel as its guest would.
func (l *lab) impersonate(d *Driver) *runner {
	l.t.Helper()
	path := d.store.Path(testVMID, channelName)
	if err := os.Remove(path); err != nil {
		l.t.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		l.t.Fatal(err)
	}
	r := &runner{}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = channel.Serve(ctx, conn, r) // one at a time, as QEMU does
		}
	})
	l.t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		serving.Wait()
	})
	return r
}

func TestDetachAsksTheGuest(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.volume(d)
	l.power(d, hypervisor.PowerOn, 0)
	l.attach(d, "work")
	r := l.impersonate(d)
	r.use("/workspace", "swap")
	_, err := d.DetachVolume(testContext(t), testRef(), volumeRef())
	if !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "/workspace, swap") || fault.HintOf(err) == "" {
		t.Errorf("detach of a disk in use: %v, want precondition that names who uses it", err)
	}
	if got := l.guestSees(d); len(got) != 1 {
		t.Errorf("after a refused detach the guest has %v", got)
	}
	// A program that runs does not hold up the question.
	begun := make(chan struct{})
	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() {
		_, err := d.Exec(ctx, testRef(), hypervisor.Command{Argv: []string{"wait"}}, hypervisor.Streams{Stdout: signal(begun)})
		ended <- err
	}()
	<-begun
	r.use()
	l.detach(d)
	if got := l.guestSees(d); len(got) > 0 {
		t.Errorf("after the detach the guest has %v", got)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("a program whose caller has gone ended well")
	}
	l.attach(d, "work") // and comes back
}

type signal chan struct{}

func (s signal) Write(b []byte) (int, error) { close(s); return len(b), nil }

func TestExec(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	l.impersonate(d)
	var stdout, stderr bytes.Buffer
	cmd := hypervisor.Command{Argv: []string{"a", "b", "c"}, Env: map[string]string{"B": "2", "A": "1"}}
	code, err := d.Exec(testContext(t), testRef(), cmd, hypervisor.Streams{
		Stdin: strings.NewReader("input"), Stdout: &stdout, Stderr: &stderr,
	})
	if err != nil || code != 3 || stdout.String() != "input" || stderr.String() != "A=1 B=2" {
		t.Errorf("exec: %d, %v, %q, %q", code, err, stdout.String(), stderr.String())
	}
	l.power(d, hypervisor.PowerPaused, 0)
	if _, err := d.Exec(testContext(t), testRef(), cmd, hypervisor.Streams{}); !errors.Is(err, fault.Precondition) {
		t.Errorf("exec in a paused vm: %v, want precondition", err)
	}
}
