package rootexec

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// drainTime is how long output is still read once the program has ended.
	drainTime = time.Second
	// emptyTime bounds waiting for a killed group to be empty.
	emptyTime = 5 * time.Second
	path      = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Run runs e to its end and gives its exit code: 128 plus the signal's number
// for a program that was killed. The end of ctx kills it, and what it leaves
// running is killed in any case; systemd-run is for what shall stay.
func Run(ctx context.Context, l layout.Layout, e channel.Exec, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	program, err := find(e.Argv[0])
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, program, e.Argv[1:]...)
	cmd.Args[0] = e.Argv[0]
	cmd.Dir = e.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append([]string{"PATH=" + path, "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh", "LANG=C.UTF-8", "TERM=dumb"}, e.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.WaitDelay = drainTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	g := newGroup(l)
	defer g.end()
	if g != nil {
		dir, err := os.Open(g.dir)
		if err != nil {
			return 0, fmt.Errorf("open control group: %w", err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	cmd.Cancel = func() error {
		g.kill()
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err := cmd.Start(); err != nil {
		return 0, fault.New(fault.Precondition, "start %s: %w", e.Argv[0], err)
	}
	// The runner's own protection from the kernel's killer would be inherited.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err == nil, errors.Is(err, exec.ErrWaitDelay), errors.As(err, &exit):
		return exitCode(cmd.ProcessState), nil
	}
	return 0, fmt.Errorf("run %s: %w", e.Argv[0], err)
}

func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// find looks a program up as a login of root would, not as this service does.
func find(name string) (string, error) {
	if strings.Contains(name, "/") {
		if _, err := os.Stat(name); err != nil {
			return "", fault.New(fault.NotFound, "this guest has no program %s", name)
		}
		return name, nil
	}
	for dir := range strings.SplitSeq(path, ":") {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fault.New(fault.NotFound, "this guest has no program %s", name)
}

// Sweep ends the programs of a runner that was killed.
func Sweep(l layout.Layout) {
	left, _ := filepath.Glob(l.At("/sys/fs/cgroup/" + groupPrefix + "*"))
	for _, dir := range left {
		(&group{dir}).end()
	}
}

// group is a control group for one program; nil where there are none.
type group struct{ dir string }

const groupPrefix = "agentlab-exec-"

func newGroup(l layout.Layout) *group {
	top := l.At("/sys/fs/cgroup")
	if _, err := os.Stat(filepath.Join(top, "cgroup.controllers")); err != nil {
		return nil
	}
	g := &group{filepath.Join(top, groupPrefix+strings.ToLower(rand.Text()[:10]))}
	if os.Mkdir(g.dir, 0o755) != nil {
		return nil
	}
	return g
}

func (g *group) kill() {
	if g != nil {
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0o644)
	}
}

// end kills what is left and removes the group, which must be empty for that.
func (g *group) end() {
	if g == nil {
		return
	}
	for deadline := time.Now().Add(emptyTime); ; time.Sleep(5 * time.Millisecond) {
		if os.Remove(g.dir) == nil || time.Now().After(deadline) {
			return
		}
		g.kill()
	}
}
