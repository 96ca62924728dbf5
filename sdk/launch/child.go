package launch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// strayOutput is how long output is read after the process has ended: a
	// program that left the group may still hold the pipe.
	strayOutput = 500 * time.Millisecond
	// killWait bounds waiting for a killed process, which takes long only when
	// the kernel cannot let go of it.
	killWait = 5 * time.Second
	// maxHandshake is how much of the first line of output go-plugin sees.
	maxHandshake = 16 << 10
)

// child is the process itself. It is the runner that go-plugin is given: its
// pipes, its environment and its end are ours.
type child struct {
	spec Spec
	file *os.File // verified binary
	out  *pump
	env  []string // set by go-plugin before Start

	handshake *io.PipeReader // first line of standard output
	lifeline  *os.File       // our end of the plugin's standard input
	cut       sync.Once
	reading   sync.WaitGroup
	exited    chan struct{} // closed when the process and its group are gone

	mu sync.Mutex
	// mu guards:
	pid    int  // 0 before the start
	doomed bool // killed before it had a pid
	reaped bool
	state  *os.ProcessState
}

func newChild(spec Spec, file *os.File) *child {
	return &child{spec: spec, file: file, out: newPump(spec.Log), exited: make(chan struct{})}
}

// Start starts the process. It is called at most once.
func (c *child) Start(context.Context) error {
	stdinR, stdinW, err1 := os.Pipe()
	stdoutR, stdoutW, err2 := os.Pipe()
	stderrR, stderrW, err3 := os.Pipe()
	theirs := []*os.File{stdinR, stdoutW, stderrW}
	if err := errors.Join(err1, err2, err3); err != nil {
		closeAll(stdinR, stdinW, stdoutR, stdoutW, stderrR, stderrW)
		close(c.exited)
		return err
	}
	c.lifeline = stdinW
	first, firstW := io.Pipe()
	c.handshake = first
	c.reading.Go(func() { c.readStdout(stdoutR, firstW) })
	c.reading.Go(func() { c.out.read(stderrR) })

	cmd := c.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdinR, stdoutW, stderrW
	started := make(chan error, 1)
	go c.own(cmd, started, stdoutR, stderrR)
	err := <-started
	closeAll(theirs...)
	return err
}

func (c *child) command() *exec.Cmd {
	cmd := &exec.Cmd{
		Path: "/proc/self/fd/" + strconv.Itoa(int(c.file.Fd())),
		Args: append([]string{c.spec.Path}, c.spec.Args...),
		Env:  append(append([]string{}, c.spec.Env...), c.env...),
		Dir:  "/",
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:   true,
			Pdeathsig: syscall.SIGKILL,
		},
	}
	if isScript(c.file) { // its interpreter opens the file again, after exec
		cmd.ExtraFiles = []*os.File{c.file}
		cmd.Path = "/proc/self/fd/3"
	}
	return cmd
}

// own starts the process and stays until its end on one thread, because
// Pdeathsig comes when the thread that forked ends.
func (c *child) own(cmd *exec.Cmd, started chan<- error, outputs ...*os.File) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(c.exited)
	err := cmd.Start()
	if err == nil {
		c.mu.Lock()
		c.pid = cmd.Process.Pid
		doomed := c.doomed
		c.mu.Unlock()
		if doomed {
			c.signal(unix.SIGKILL)
		}
	}
	started <- err
	if err == nil {
		c.reap(cmd)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.reading.Wait()
	}()
	select {
	case <-read:
	case <-time.After(strayOutput):
	}
	closeAll(outputs...) // ends reads that still wait
	<-read
	c.cutLifeline()
}

// reap waits for the end and kills what is left of the group while the process
// is still a zombie: until it is reaped nobody else can get its number.
func (c *child) reap(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = unix.Kill(-c.pid, unix.SIGKILL)
	_ = cmd.Wait() // the state says how it ended
	c.reaped, c.state = true, cmd.ProcessState
}

func (c *child) started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid != 0
}

// signal sends to the whole group, never to a group that took over its number.
func (c *child) signal(sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.pid == 0:
		c.doomed = c.doomed || sig == unix.SIGKILL
	case !c.reaped:
		_ = unix.Kill(-c.pid, sig)
	}
}

// cutLifeline tells the plugin that its host is gone.
func (c *child) cutLifeline() {
	c.cut.Do(func() { closeAll(c.lifeline) })
}

// readStdout hands the first line to go-plugin and logs the rest.
func (c *child) readStdout(r io.Reader, first *io.PipeWriter) {
	br := bufio.NewReaderSize(r, maxLine)
	line, _ := readLine(br)
	if len(line) > maxHandshake {
		line = line[:maxHandshake]
	}
	if len(line) > 0 {
		_, _ = fmt.Fprintf(first, "%s\n", line)
	}
	// More than one line may be there already: the pump reads on from br.
	c.out.read(br)
	_ = first.Close()
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// exit tells how the process ended.
func (c *child) exit() Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Exit{Output: c.out.last()}
	if c.state == nil {
		return out
	}
	out.Code = c.state.ExitCode()
	if ws, ok := c.state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		out.Signal = unix.SignalName(ws.Signal())
	}
	return out
}

// The rest makes child a runner.Runner.

// Wait waits for the end.
func (c *child) Wait(context.Context) error {
	<-c.exited
	if e := c.exit(); e.Code != 0 {
		return errors.New(e.String())
	}
	return nil
}

// Kill kills the group and waits for its end. What never started has ended.
func (c *child) Kill(ctx context.Context) error {
	c.signal(unix.SIGKILL)
	if c.ID() == "0" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %s does not end", c.ID())
	}
}

// ID is the process id.
func (c *child) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strconv.Itoa(c.pid)
}

// Stdout has the first line only.
func (c *child) Stdout() io.ReadCloser { return c.handshake }

// Stderr is empty: go-plugin must not parse what a plugin prints.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(eof{}) }

// Name is the path of the binary.
func (c *child) Name() string { return c.spec.Path }

// Diagnose has nothing to add.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost changes nothing: both see the same file system.
func (c *child) PluginToHost(network, addr string) (string, string, error) { return network, addr, nil }

// HostToPlugin changes nothing.
func (c *child) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
