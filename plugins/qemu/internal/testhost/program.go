package testhost

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

const headless = "AGENTLAB_TEST_HEADLESS"

// init ends the first thread of a test's copy that plays a headless program.
// Those of the runtime go on.
func init() {
	if os.Getenv(headless) != "" {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
}

// Program is what a guest may have made of its QEMU.
type Program struct {
	UID  uint32
	Args []string // its command
	// Headless: its first thread has ended, others run.
	Headless bool
}

// Start starts it and gives the pid. The test ends it.
func Start(t testing.TB, p Program) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	if p.Headless {
		cmd.Env = []string{headless + "=1"}
	} else {
		path, err := exec.LookPath(p.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		cmd = &exec.Cmd{Path: path, Args: p.Args}
	}
	cmd.Dir = "/"
	if _, err := cmd.StdinPipe(); err != nil { // one that reads waits
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.UID, Gid: p.UID}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	stat := fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); p.Headless && time.Now().Before(deadline); {
		if b, err := os.ReadFile(stat); err != nil || bytes.Contains(b, []byte(") Z ")) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return cmd.Process.Pid
}
