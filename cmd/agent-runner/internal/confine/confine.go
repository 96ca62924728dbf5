package confine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// DefaultGrace is how long programs may take to end after SIGTERM.
const DefaultGrace = 10 * time.Second

// drainTime is how long output is still read once everything has ended.
const drainTime = 2 * time.Second

// Confinement runs programs as one user.
type Confinement struct {
	login layout.Login
	group *group // nil: process groups are all there is
}

// New prepares the confinement and ends what an earlier runner left in it.
func New(ctx context.Context, l layout.Layout, login layout.Login) (*Confinement, error) {
	c := &Confinement{login: login, group: openGroup(l)}
	if c.group != nil {
		if err := c.group.kill(ctx); err != nil {
			return nil, fmt.Errorf("end an earlier job: %w", err)
		}
	}
	return c, nil
}

// Command is a program to run.
type Command struct {
	Argv   []string
	Dir    string
	Env    []string
	Stdin  io.Reader // nil: empty
	Output io.Writer // standard output and error, as they come
	Grace  time.Duration
}

// Run runs the program and everything it starts. When ctx ends, its processes
// get SIGTERM and, after Grace, SIGKILL; then the error is ctx's cause. What
// the program leaves running is killed before Run returns. The exit code is
// 128 plus the signal's number for a program that was killed.
func (c *Confinement) Run(ctx context.Context, k Command) (int, error) {
	if err := ctx.Err(); err != nil {
		return -1, context.Cause(ctx)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return -1, fmt.Errorf("make pipe: %w", err)
	}
	defer read.Close()
	cmd := exec.Command(k.Argv[0], k.Argv[1:]...) //nolint:noctx // ended by end, politely first
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = k.Dir, k.Env, k.Stdin, write, write
	cmd.WaitDelay = drainTime // for Stdin's copy
	closeGroup, err := c.attributes(cmd)
	if err != nil {
		write.Close()
		return -1, err
	}
	err = cmd.Start()
	write.Close()
	closeGroup()
	if err != nil {
		return -1, fmt.Errorf("start %s: %w", k.Argv[0], err)
	}
	limit(cmd.Process.Pid)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(k.Output, read)
	}()
	code, err := c.await(ctx, cmd, k.Grace)
	killErr := c.killAll(context.WithoutCancel(ctx), cmd.Process.Pid)
	_ = read.SetReadDeadline(time.Now().Add(drainTime))
	<-copied
	return code, errors.Join(err, killErr)
}

// await waits for the program, and ends it when ctx does.
func (c *Confinement) await(ctx context.Context, cmd *exec.Cmd, grace time.Duration) (int, error) {
	if grace == 0 {
		grace = DefaultGrace
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the state is read below
	}()
	select {
	case <-ended:
		return exitCode(cmd.ProcessState), nil
	case <-ctx.Done():
	}
	pid := cmd.Process.Pid
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(grace):
		_ = c.killAll(context.WithoutCancel(ctx), pid)
		<-ended
	}
	return exitCode(cmd.ProcessState), context.Cause(ctx)
}

func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// killAll ends every process of the command.
func (c *Confinement) killAll(ctx context.Context, pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("end process group: %w", err)
	}
	if c.group == nil {
		return nil
	}
	return c.group.kill(ctx)
}

// attributes makes the program start as the user, in its own session and in
// the control group from its first instruction on.
func (c *Confinement) attributes(cmd *exec.Cmd) (done func(), err error) {
	done = func() {}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 && c.login.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.login.UID, Gid: c.login.GID, Groups: []uint32{c.login.GID}}
	}
	if c.group == nil {
		return done, nil
	}
	dir, err := os.Open(c.group.dir)
	if err != nil {
		return done, fmt.Errorf("open control group: %w", err)
	}
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return func() { dir.Close() }, nil
}

// jobOOMScore makes the kernel end a job before anything else. The runner's own
// protection from it would be inherited otherwise.
const jobOOMScore = "500"

// limit is a second layer where there is no control group. A program that has
// ended already needs none.
func limit(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(jobOOMScore), 0)
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	if os.Geteuid() == 0 {
		_ = unix.Prlimit(pid, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: mostTasks, Max: mostTasks}, nil)
	}
}
