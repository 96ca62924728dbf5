package unit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/internal/testkit"
)

// partitionAt is where the only partition of the cloud image begins, in bytes; see
// PARTITION_SECTOR in images/cloud/disk.sh.
const partitionAt = 2048 * 512

// TestService does everything to the service, in a container of the cloud image's
// own tree: there systemd is PID 1, and nothing is emulated.
func TestService(t *testing.T) {
	c := bootContainer(t)
	g := guest{Run: c.run}
	install(t, g)
	live(t, g)
	t.Run("reboot", c.testReboot)
	afterReboot(t, g)
}

// rebooted is how systemd-nspawn ends for its container to be started again; see
// --keep-unit in its source, src/nspawn/nspawn.c.
const rebooted = 133

// container is a booted systemd-nspawn.
type container struct {
	tree   string
	cgroup *os.File // a control group of its own, below which systemd makes others
	nspawn *exec.Cmd
	said   *bytes.Buffer // by the console, complete when nspawn has ended
}

func bootContainer(t *testing.T) *container {
	t.Helper()
	template := os.Getenv("AGENTLAB_CLOUD_TEMPLATE")
	if template == "" {
		t.Skip("needs a guest image; set AGENTLAB_CLOUD_TEMPLATE to what scripts/image.sh --kind cloud prints")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a container")
	}
	for _, tool := range []string{"systemd-nspawn", "qemu-img", "debugfs", "nsenter", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	if r := testkit.Capture(exec.Command("unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "none", "/mnt")); r.Code != 0 {
		t.Skipf("this machine has no containers: %s", r.Stderr)
	}
	c := &container{cgroup: newCgroup(t), tree: unpackImage(t, template), said: &bytes.Buffer{}}
	c.boot(t)
	t.Cleanup(func() { c.end(t) })
	return c
}

func (c *container) boot(t *testing.T) {
	t.Helper()
	c.nspawn = c.command("--boot")
	c.nspawn.Stdout, c.nspawn.Stderr = c.said, c.said
	if err := c.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 2*time.Minute, "the container has booted", c.up)
}

// unpackImage gives the file system of an image as a folder. Its identity comes
// from no seed, and nobody in it waits for a host.
func unpackImage(t *testing.T, template string) string {
	t.Helper()
	dir := t.TempDir()
	raw, tree := filepath.Join(dir, "raw"), filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"qemu-img", "convert", "-O", "raw", filepath.Join(template, "root.qcow2"), raw},
		{"debugfs", "-R", "rdump / " + tree, fmt.Sprintf("%s?offset=%d", raw, partitionAt)},
		{"rm", raw},
		{"touch", filepath.Join(tree, "etc/cloud/cloud-init.disabled")},
		{"ln", "-sf", "/dev/null", filepath.Join(tree, "etc/systemd/system/agent-runner.service")},
	} {
		if r := testkit.Capture(exec.Command(argv[0], argv[1:]...)); r.Code != 0 {
			t.Fatalf("%v: exit %d: %s", argv, r.Code, r.Stderr)
		}
	}
	return tree
}

// newCgroup makes a control group for a container. Two that were started in the same
// one would take each other's services for their own.
func newCgroup(t *testing.T) *os.File {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		dir, err := os.MkdirTemp(root, "agentlab-test-")
		if err != nil {
			t.Skipf("needs a control group: %v", err)
		}
		testkit.OnEnd(t, func() { removeCgroups(dir) })
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	t.Skip("needs control groups of version 2")
	return nil
}

// removeCgroups removes a group and those below it, which are empty.
func removeCgroups(dir string) {
	below, _ := filepath.Glob(filepath.Join(dir, "*", "."))
	for _, d := range below {
		removeCgroups(filepath.Clean(d))
	}
	_ = os.Remove(dir)
}

// command is systemd-nspawn over the tree, with an empty network. It ends with this
// process, whatever ends that.
func (c *container) command(args ...string) *exec.Cmd {
	cmd := exec.Command("setpriv", append([]string{
		"--pdeathsig", "KILL", "systemd-nspawn", "--quiet", "--directory", c.tree, "--register=no", "--keep-unit",
		"--private-network", "--console=pipe", "--link-journal=no",
	}, args...)...)
	// As on Debian, whatever this machine has.
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.cgroup.Fd())}
	return cmd
}

// end kills what is in the container, and with it all of it.
func (c *container) end(t *testing.T) {
	if err := c.nspawn.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	force := time.AfterFunc(20*time.Second, func() { _ = c.nspawn.Process.Kill() })
	defer force.Stop()
	_ = c.nspawn.Wait() // the code tells how it was ended
	if t.Failed() {
		t.Logf("the console:\n%s", c.said)
	}
}

// leader is the pid of the container's PID 1; a reboot makes another one.
func (c *container) leader() (string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.nspawn.Process.Pid))
	if err != nil {
		return "", err
	}
	children := strings.Fields(string(raw))
	if len(children) == 0 {
		return "", os.ErrNotExist
	}
	return children[0], nil
}

// run runs a line of shell as root.
func (c *container) run(ctx context.Context, line string, stdin io.Reader) testkit.Result {
	pid, err := c.leader()
	if err != nil {
		return testkit.Result{Code: -1, Stderr: err.Error()}
	}
	cmd := exec.CommandContext(ctx, "nsenter", "-t", pid, "-m", "-u", "-i", "-n", "-p", "sh", "-c", line)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd.Stdin = stdin
	return testkit.Capture(cmd)
}

// up tells whether the boot is complete.
func (c *container) up() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	state := c.run(ctx, "systemctl is-system-running --wait", nil).Stdout
	return state == "running\n" || state == "degraded\n" // a container remounts no root
}

func (c *container) testReboot(t *testing.T) {
	if r := c.run(t.Context(), "systemctl reboot", nil); r.Code != 0 {
		t.Fatalf("reboot: exit %d: %s", r.Code, r.Stderr)
	}
	if err := c.nspawn.Wait(); c.nspawn.ProcessState.ExitCode() != rebooted {
		t.Fatalf("the container ended: %v, want %d", err, rebooted)
	}
	c.boot(t)
}
