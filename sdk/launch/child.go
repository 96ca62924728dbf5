package launch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
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
	// maxHandshake is the longest first line of output that can be a handshake.
	maxHandshake = 16 << 10
)

// child is the process itself. It is the runner that go-plugin is given: its
// pipes, its environment and its end are ours.
type child struct {
	spec Spec
	file *os.File // verified binary
	out  *pump
	env  []string // set by go-plugin before Start

	socketDir string   // where the plugin makes its socket
	sockets   *os.File // the same for a confined plugin, which may not pass through to it

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
	cmd, err := c.command()
	if err != nil {
		close(c.exited)
		return err
	}
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

	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdinR, stdoutW, stderrW
	done, err := c.setApart(cmd, theirs)
	if err != nil {
		closeAll(stdinR, stdinW, stdoutR, stdoutW, stderrR, stderrW, c.sockets)
		close(c.exited)
		return err
	}
	defer done()
	started := make(chan error, 1)
	go c.own(cmd, started, stdoutR, stderrR)
	err = <-started
	closeAll(append(theirs, c.sockets)...)
	return err
}

func (c *child) command() (*exec.Cmd, error) {
	cmd := &exec.Cmd{
		Path: fdPath(int(c.file.Fd())),
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
		cmd.Path = fdPath(firstExtra)
	}
	if c.sockets != nil {
		cmd.Env = append(cmd.Env, socketDirKey+"="+fdPath(firstExtra+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.sockets)
	}
	return cmd, c.spec.Grant.attributes(cmd.SysProcAttr)
}

// setApart has a binary executed from a descriptor far above all that the process
// gets: between fork and exec those are copied to the lowest numbers, and some to
// numbers just above the highest, over whatever is there.
func (c *child) setApart(cmd *exec.Cmd, passed []*os.File) (done func(), err error) {
	if len(cmd.ExtraFiles) > 0 && cmd.ExtraFiles[0] == c.file {
		return func() {}, nil // it is passed itself
	}
	floor := 0
	for _, f := range append(passed, cmd.ExtraFiles...) {
		floor = max(floor, int(f.Fd()))
	}
	fd, err := unix.FcntlInt(c.file.Fd(), unix.F_DUPFD_CLOEXEC, floor+apart)
	if err != nil {
		return nil, fmt.Errorf("copy the binary's descriptor: %w", err)
	}
	cmd.Path = fdPath(fd)
	return func() { _ = unix.Close(fd) }, nil
}

// apart is more than a fork ever needs above the highest descriptor it passes.
const apart = 16

// firstExtra is the descriptor that a process gets the first of its ExtraFiles
// as.
const firstExtra = 3

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// own starts the process and stays until its end on one thread, because
// Pdeathsig comes when the thread that forked ends. A thread that gave up
// privileges ends with this function, for it is not unlocked.
func (c *child) own(cmd *exec.Cmd, started chan<- error, outputs ...*os.File) {
	runtime.LockOSThread()
	if !c.spec.Grant.Confined {
		defer runtime.UnlockOSThread()
	} else if unix.Gettid() == os.Getpid() { // the first thread ends with the process only
		elsewhere(func() { c.own(cmd, started, outputs...) })
		runtime.UnlockOSThread()
		return
	}
	defer close(c.exited)
	err := c.spec.Grant.bind()
	if err == nil {
		err = cmd.Start()
	}
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

// elsewhere runs f on another thread than this, which is locked, and returns once
// that is sure.
func elsewhere(f func()) {
	locked := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(locked)
		f()
	}()
	<-locked
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
	br := bufio.NewReaderSize(r, maxHandshake)
	line, more, err := br.ReadLine()
	if more { // this is not it, and its end may never come
		line = append(line[:maxFatal:maxFatal], " [cut]"...)
	}
	if len(line) > 0 {
		// What is no handshake, go-plugin puts in its error as it is.
		_, _ = fmt.Fprintf(first, "%s\n", printable(string(bytes.TrimSpace(line))))
	}
	for more && err == nil {
		_, more, err = br.ReadLine()
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
	if used, ok := c.state.SysUsage().(*syscall.Rusage); ok {
		out.Memory = used.Maxrss << 10
	}
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

// PluginToHost finds the socket of a confined plugin, which knows its folder as
// a descriptor. Otherwise both see the same.
func (c *child) PluginToHost(network, addr string) (string, string, error) {
	switch {
	case c.sockets == nil:
		return network, addr, nil
	case network != "unix":
		return "", "", fmt.Errorf("it listens on %s, not on a Unix socket in $%s", network, socketDirKey)
	case strings.HasPrefix(addr, "/proc/self/fd/"):
		addr = filepath.Join(c.socketDir, filepath.Base(addr))
	}
	return network, addr, nil
}

// socketDirKey is how go-plugin tells the plugin where its socket goes.
const socketDirKey = "PLUGIN_UNIX_SOCKET_DIR"

// shelter gives a confined plugin the folder for its socket: as its own, and as a
// descriptor, because its user may not be let through the folders above.
func (c *child) shelter(dir string) error {
	c.socketDir = dir
	if g := c.spec.Grant; g.Confined {
		if err := os.Chown(dir, g.UID, g.GID); err != nil {
			return err
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", dir, err)
		}
		c.sockets = os.NewFile(uintptr(fd), dir)
	}
	return nil
}

// HostToPlugin changes nothing.
func (c *child) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
