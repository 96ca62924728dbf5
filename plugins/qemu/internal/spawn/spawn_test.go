package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	testUID  = 423_456
	testMark = "mark-of-spawn"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to start programs as other users")
	}
}

func start(t *testing.T, script string, files ...*os.File) *Program {
	t.Helper()
	p, err := Start(Spec{Path: "/bin/sh", Args: []string{"-c", script, testMark}, UID: testUID, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(p.PID, unix.SIGKILL)
		p.Close()
	})
	return p
}

func waitEnd(t *testing.T, p *Program) {
	t.Helper()
	h, err := procfs.Open(p.Identity)
	if errors.Is(err, procfs.ErrGone) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestProgramIsOnItsOwn(t *testing.T) {
	needRoot(t)
	given, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	// Left open without close-on-exec, as a careless parent does.
	leak, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	p := start(t, `id -u; id -g; cut -d" " -f6 /proc/$$/stat; echo $$; env | grep -c SECRET; for f in /proc/$$/fd/*; do readlink $f; done`, given)
	waitEnd(t, p)
	out := strings.Split(p.Output(), "\n")
	if len(out) < 5 || out[0] != fmt.Sprint(testUID) || out[1] != out[0] {
		t.Fatalf("output = %q", out)
	}
	if out[2] != out[3] {
		t.Errorf("session %s is not the program's own %s", out[2], out[3])
	}
	held := strings.Join(out[5:], " ")
	if strings.Contains(held, "hostname") || !strings.Contains(held, "/dev/zero") || !strings.Contains(held, "/dev/null") {
		t.Errorf("descriptors = %s", held)
	}
}

func TestOutputIsBounded(t *testing.T) {
	needRoot(t)
	p := start(t, `i=0; while [ $i -lt 3000 ]; do echo "0123456789012345678901234567890123456789"; i=$((i+1)); done; exit 0`)
	waitEnd(t, p)
	if n := len(p.Output()); n == 0 || n > outputBytes {
		t.Errorf("output has %d bytes", n)
	}
}

func TestStartErrors(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fault.Class{"/nope/qemu": fault.Unavailable, plain: fault.Denied} {
		_, err := Start(Spec{Path: path, UID: uint32(os.Geteuid())})
		if !errors.Is(err, want) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (%s), want %s", path, err, fault.HintOf(err), want)
		}
	}
}

// A program whose start time is not known could not be told from others later.
func TestProgramThatCannotBeNotedIsEnded(t *testing.T) {
	needRoot(t)
	t.Cleanup(func() { readStat = procfs.ReadStat })
	var pid int
	readStat = func(started int) (procfs.Stat, error) {
		pid = started
		return procfs.Stat{}, errors.New("not today")
	}
	_, err := Start(Spec{Path: "/bin/sleep", Args: []string{"600"}, UID: testUID})
	if !errors.Is(err, fault.Internal) {
		t.Errorf("err = %v, want internal", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); pid == 0 || err == nil {
		t.Errorf("pid %d runs on", pid)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func TestListenForRootOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-", 40))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second replaces the first
		f, err := Listen(dir, "qmp.sock")
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		st, err := os.Stat(filepath.Join(dir, "qmp.sock"))
		if err != nil || st.Mode().Perm() != 0o600 || st.Mode()&os.ModeSocket == 0 {
			t.Errorf("socket: %v, %v", st.Mode(), err)
		}
	}
}

func TestScopeArgs(t *testing.T) {
	args := strings.Join(scopeArgs(1042, 1_900_001_042, 77), " ")
	if !strings.Contains(args, "ssa(sv)a(sa(sv)) agentlab-vm-1042-1900001042.scope fail 4 PIDs au 1 77 ") {
		t.Errorf("args = %q", args)
	}
}

// TestScope needs systemd. $SCOPE_PID names a process of the caller's to move,
// which then stays; without it the test makes one.
func TestScope(t *testing.T) {
	if _, err := os.Stat(systemdFolder); err != nil {
		t.Skip("needs a machine with systemd")
	}
	pid, err := strconv.Atoi(os.Getenv("SCOPE_PID"))
	if err != nil {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		pid = cmd.Process.Pid
	}
	if err := Scope(t.Context(), 1042, 1_900_001_042, pid); err != nil {
		t.Fatal(err)
	}
	if !inScope(ScopeName(1042, 1_900_001_042), pid) || inScope(ScopeName(1042, 1_900_001_042), os.Getpid()) {
		t.Errorf("process %d is in its scope: %v, and this one: %v", pid, inScope(ScopeName(1042, 1_900_001_042), pid), inScope(ScopeName(1042, 1_900_001_042), os.Getpid()))
	}
}

func TestScopeWithoutSystemd(t *testing.T) {
	if _, err := os.Stat(systemdFolder); err == nil {
		t.Skip("needs a machine without systemd")
	}
	if err := Scope(t.Context(), 1042, 1_900_001_042, os.Getpid()); err != nil {
		t.Error(err)
	}
}
