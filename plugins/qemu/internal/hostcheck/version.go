package hostcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/sdk/fault"
)

const versionTimeout = 10 * time.Second

// Oldest is the first QEMU that has everything used here.
var Oldest = accel.Version{Major: 7, Minor: 2}

// Versions asks programs for their version, and again only when the file has
// changed: an upgrade of QEMU must not need a restart.
type Versions struct {
	mu    sync.Mutex // mu guards: known
	known map[string]seen
}

type seen struct {
	stamp   string
	version accel.Version
}

var versionLine = regexp.MustCompile(`version (\d+)\.(\d+)`)

// QEMU gives path's version. fault.Unavailable when it cannot be run.
func (v *Versions) QEMU(ctx context.Context, path string) (accel.Version, error) {
	file, err := exec.LookPath(path)
	if err != nil {
		return accel.Version{}, missing(path, err)
	}
	st, err := os.Stat(file)
	if err != nil {
		return accel.Version{}, missing(path, err)
	}
	stamp := fmt.Sprint(file, st.Size(), st.ModTime().UnixNano())
	v.mu.Lock()
	s, ok := v.known[path]
	v.mu.Unlock() // one that hangs must not hold up who has less time
	if ok && s.stamp == stamp {
		return s.version, nil
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, file, "--version")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	if err := cmd.Run(); err != nil {
		return accel.Version{}, &fault.Error{
			Class: fault.Unavailable, Message: "ask qemu for its version: " + err.Error(), Err: err,
			Command: file, ExitCode: cmd.ProcessState.ExitCode(), Stderr: stderr.String(),
			Hint: "apt-get install --reinstall qemu-system-x86",
		}
	}
	version, err := parseVersion(stdout.String())
	if err != nil {
		return accel.Version{}, fault.New(fault.Unavailable, "%s: %w", file, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil {
		v.known = map[string]seen{}
	}
	v.known[path] = seen{stamp, version}
	return version, nil
}

func parseVersion(out string) (accel.Version, error) {
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		return accel.Version{}, fmt.Errorf("no version in %.80q", out)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return accel.Version{}, err
	}
	minor, err := strconv.Atoi(m[2])
	return accel.Version{Major: major, Minor: minor}, err
}

func missing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return fault.New(fault.Unavailable, "QEMU is not installed: there is no %s", path).
			WithHint("apt-get install qemu-system-x86, or name another with qemu_binary")
	}
	return fault.New(fault.Unavailable, "QEMU cannot be run: %w", err).WithHint("chmod +x %s, or name another with qemu_binary", path)
}

// older reports whether v comes before Oldest.
func older(v accel.Version) bool {
	return v.Major < Oldest.Major || v.Major == Oldest.Major && v.Minor < Oldest.Minor
}
