package disk

import (
	"bytes"
	"context"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Tool is the program that makes disks.
const Tool = "qemu-img"

// tool runs qemu-img as the user and gives what it prints. It ends with this
// program: nothing may go on writing beside the call that comes again.
func tool(ctx context.Context, uid uint32, args ...string) ([]byte, error) {
	runtime.LockOSThread() // the signal comes when the thread that started it ends
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, Tool, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}},
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, classify(ctx, cmd, err, stderr.String())
	}
	return stdout.Bytes(), nil
}

func classify(ctx context.Context, cmd *exec.Cmd, err error, stderr string) error {
	e := &fault.Error{
		Class: fault.Internal, Message: "make disk: " + err.Error(), Err: err, Command: Tool,
		ExitCode: cmd.ProcessState.ExitCode(), Stderr: stderr,
	}
	switch {
	case ctx.Err() != nil:
		e.Class = fault.Timeout
	case strings.Contains(stderr, syscall.ENOSPC.Error()) || strings.Contains(stderr, "No space left"):
		e.Class, e.Hint = fault.Exhausted, "free space on the file system of the plugin's state folder"
	case strings.Contains(stderr, "Permission denied"):
		e.Class = fault.Precondition
		e.Hint = "every folder above the plugin's state folder needs mode 0711 or more"
	case strings.Contains(stderr, "Is another process using the image"):
		e.Class = fault.Locked
	case cmd.ProcessState == nil:
		e.Class, e.Hint = fault.Unavailable, "apt-get install qemu-utils"
	}
	return e
}
