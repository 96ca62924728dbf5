package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// FirstFile is the descriptor under which the program finds Files[0].
	FirstFile = 3
	// outputBytes is all that a QEMU may ever print.
	outputBytes = 64 << 10
	// Guests go before the daemon when the host runs out of memory.
	oomScore = "300"
	lowest   = 19 // priority
)

var readStat = procfs.ReadStat

// Spec is one program to start.
type Spec struct {
	Path   string
	Args   []string
	UID    uint32   // also the group
	Groups []uint32 // further groups, for /dev/kvm
	Files  []*os.File
	// Background: what others have to do goes before it.
	Background bool
}

// Program has been started. Close lets go of its output; it runs on.
type Program struct {
	procfs.Identity
	output *os.File
}

// Start runs the program; after an error it does not run. It is not waited for: procfs.Check lays it to rest
// when it has ended, and init does when this program ends first.
func Start(s Spec) (*Program, error) {
	output, err := boundedFile("qemu-output")
	if err != nil {
		return nil, fault.New(fault.Internal, "make output file: %w", err)
	}
	// Whoever started this program may have left descriptors open in it.
	if err := unix.CloseRange(FirstFile, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		_ = output.Close()
		return nil, fault.New(fault.Internal, "seal descriptors: %w", err)
	}
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = s.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Credential: &syscall.Credential{Uid: s.UID, Gid: s.UID, Groups: s.Groups},
	}
	begin := cmd.Start
	if s.Background {
		begin = func() error { return startNice(cmd) }
	}
	if err := begin(); err != nil {
		_ = output.Close()
		return nil, classifyStart(s.Path, err)
	}
	p := &Program{procfs.Identity{PID: cmd.Process.Pid, UID: s.UID}, output}
	st, err := readStat(p.PID)
	if err != nil {
		// It is our child and not laid to rest, so its entry must be there. What
		// cannot be noted must not run on.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		p.Close()
		return nil, fault.New(fault.Internal, "read start time of pid %d: %w", p.PID, err)
	}
	_ = cmd.Process.Release()
	p.StartTicks = st.StartTicks
	p.limit()
	return p, nil
}

// startNice starts the program from a thread of the lowest priority, which the
// program inherits, and ends that thread: giving way needs no privilege, setting it
// for another user's program or taking it back would.
func startNice(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, lowest)
		done <- cmd.Start()
	}()
	return <-done
}

// limit is best effort: none of it decides whether the guest may run.
func (p *Program) limit() {
	none := unix.Rlimit{}
	_ = unix.Prlimit(p.PID, unix.RLIMIT_CORE, &none, nil)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID), []byte(oomScore), 0)
}

// Close lets go of the output.
func (p *Program) Close() { _ = p.output.Close() }

// Output gives what the program has printed, the first 64 KiB.
func (p *Program) Output() string {
	buf := make([]byte, outputBytes)
	n, _ := p.output.ReadAt(buf, 0)
	return strings.TrimSpace(string(bytes.TrimRight(buf[:n], "\x00")))
}

// boundedFile is memory of a fixed size that nobody can grow, so a talkative
// QEMU fills neither disk nor memory, and a write never blocks it.
func boundedFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	err = f.Truncate(outputBytes)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func classifyStart(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Unavailable, "start %s: %w", path, err).
			WithHint("apt-get install qemu-system-x86")
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Denied, "start %s: %w", path, err).
			WithHint("the qemu plugin must run as root: every VM gets a user of its own")
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return fault.New(fault.Exhausted, "start %s: %w", path, err).
			WithHint("free memory or raise the limit on processes")
	}
	return fault.New(fault.Unavailable, "start %s: %w", path, err)
}
