package disk

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Tool is the program that makes disks.
const Tool = "qemu-img"

const createTimeout = time.Minute

// Overlay asks for one disk.
type Overlay struct {
	Path  string
	Base  string // qcow2
	Bytes uint64
	UID   uint32 // owner, and group of the same number
}

// Create makes the overlay, in place of an older one. qemu-img runs as the
// disk's own user, so no image can make it reach what that user may not.
// fault.Exhausted when the file system is full.
func Create(ctx context.Context, o Overlay) error {
	if err := os.Remove(o.Path); err != nil && !os.IsNotExist(err) {
		return record.Classify("remove old disk", err)
	}
	// Made and given away first: the user cannot create files in the folder.
	if err := record.WriteFile(o.Path, nil, 0o600, int(o.UID)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	// -u: the base was checked and its size is given, so it need not be opened.
	args := []string{
		"create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", o.Base, "-o", "compat=1.1",
		o.Path, strconv.FormatUint(o.Bytes, 10),
	}
	cmd := exec.CommandContext(ctx, Tool, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: o.UID, Gid: o.UID, Groups: []uint32{}},
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return classify(ctx, cmd, err, stderr.String())
	}
	return sync(o.Path)
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
	case cmd.ProcessState == nil:
		e.Class, e.Hint = fault.Unavailable, "apt-get install qemu-utils"
	}
	return e
}

func sync(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return record.Classify("sync disk", err)
	}
	defer f.Close()
	return record.Classify("sync disk", f.Sync())
}
