package hostcheck

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/plugins/qemu/internal/template"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	lowDisk   = 5 << 30
	lowMemory = 1 << 30
)

// Check is what to look at.
type Check struct {
	Binary   string
	State    string
	Catalog  template.Catalog
	Chooser  *accel.Chooser
	Versions *Versions
}

// Findings looks at everything, in the order an operator would fix it.
func (c Check) Findings(ctx context.Context) []plugin.Finding {
	out := []plugin.Finding{root()}
	version, finding := c.qemu(ctx)
	out = append(out, finding, imageTool(), tun())
	if finding.Level != plugin.LevelMissing {
		out = append(out, c.kvm(ctx, version))
	}
	return append(out, bus(), c.reachable(), c.diskSpace(), memory(), c.templates())
}

// Unfit gives, in a few milliseconds, the findings without which no VM starts.
func (c Check) Unfit(ctx context.Context) []plugin.Finding {
	_, qemu := c.qemu(ctx)
	all := []plugin.Finding{root(), qemu, imageTool(), tun(), bus(), c.reachable()}
	return slices.DeleteFunc(all, func(f plugin.Finding) bool { return f.Level != plugin.LevelMissing })
}

func ok(id, format string, args ...any) plugin.Finding {
	return plugin.Finding{ID: id, Level: plugin.LevelOK, Message: fmt.Sprintf(format, args...)}
}

func root() plugin.Finding {
	if os.Geteuid() == 0 {
		return ok("root", "runs as root, so each VM gets a user of its own")
	}
	return plugin.Finding{
		ID: "root", Level: plugin.LevelMissing, Message: "does not run as root",
		Fix: "start the daemon as root: VMs get users of their own",
	}
}

func (c Check) qemu(ctx context.Context) (accel.Version, plugin.Finding) {
	v, err := c.Versions.QEMU(ctx, c.Binary)
	if err != nil {
		return v, plugin.Finding{ID: "qemu", Level: plugin.LevelMissing, Message: err.Error(), Fix: fault.HintOf(err)}
	}
	if older(v) {
		return v, plugin.Finding{
			ID: "qemu", Level: plugin.LevelMissing,
			Message: fmt.Sprintf("QEMU %d.%d (%s) is older than %d.%d", v.Major, v.Minor, c.Binary, Oldest.Major, Oldest.Minor),
			Fix:     fmt.Sprintf("install QEMU %d.%d or later (Debian 12 has it), or name another with qemu_binary", Oldest.Major, Oldest.Minor),
		}
	}
	return v, ok("qemu", "QEMU %d.%d", v.Major, v.Minor)
}

func imageTool() plugin.Finding {
	if _, err := exec.LookPath(disk.Tool); err != nil {
		return plugin.Finding{
			ID: "qemu_img", Level: plugin.LevelMissing, Message: disk.Tool + " is not installed", Fix: "apt-get install qemu-utils",
		}
	}
	return ok("qemu_img", "qemu-img is there")
}

func tun() plugin.Finding {
	fd, err := unix.Open(tap.Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return plugin.Finding{
			ID: "tun", Level: plugin.LevelMissing, Message: "open " + tap.Device + ": " + err.Error(),
			Fix: "modprobe tun; in a container, pass the device " + tap.Device + " in",
		}
	}
	_ = unix.Close(fd)
	return ok("tun", "%s opens", tap.Device)
}

func bus() plugin.Finding {
	if !spawn.NeedsBus() {
		return ok("systemd_bus", "VMs outlive the daemon's unit")
	}
	return plugin.Finding{
		ID: "systemd_bus", Level: plugin.LevelMissing, Message: "systemd runs, but its bus does not answer", Fix: spawn.ScopeHint,
	}
}

// kvm never makes the host unfit: without it guests are slow, not wrong.
func (c Check) kvm(ctx context.Context, v accel.Version) plugin.Finding {
	level, says := plugin.LevelWarning, "KVM is not used: "
	switch c.Chooser.Want {
	case accel.TCG:
		return ok("kvm", "not wanted: accel is tcg")
	case accel.KVM:
		level, says = plugin.LevelMissing, "KVM does not work as it should: "
	}
	verdict, err := c.Chooser.Verdict(ctx, v)
	if err != nil {
		return plugin.Finding{ID: "kvm", Level: level, Message: err.Error(), Fix: "check again"}
	}
	if verdict.Reason != "" {
		return plugin.Finding{
			ID: "kvm", Level: level, Message: says + verdict.Reason + consequence(level, verdict.Speed), Fix: verdict.Fix,
		}
	}
	return ok("kvm", "KVM runs %.0f million instructions per second", verdict.Speed/1e6)
}

// consequence is what comes of a host without KVM; docs/images.md has the times.
func consequence(level plugin.Level, speed float64) string {
	switch {
	case level == plugin.LevelMissing && speed > 0:
		return "; accel is kvm, so guests run at that speed all the same"
	case level == plugin.LevelMissing:
		return "; accel is kvm, so no VM starts"
	}
	return "; guests are emulated and many times slower: the fast image says hello after about 15 s on two idle cores"
}

// reachable looks at each folder above the state: a VM's own user must be able
// to pass through, or its QEMU cannot open its disk.
func (c Check) reachable() plugin.Finding {
	for dir := c.State; ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err == nil && st.Mode().Perm()&0o001 == 0 {
			err = fmt.Errorf("%s has mode %04o", dir, st.Mode().Perm())
		}
		if err != nil {
			return plugin.Finding{
				ID: "state_dir", Level: plugin.LevelMissing,
				Message: "users of VMs cannot reach their disks: " + err.Error(), Fix: "chmod o+x " + dir,
			}
		}
		if dir == filepath.Dir(dir) {
			return ok("state_dir", "disks are kept below %s", c.State)
		}
	}
}

func (c Check) diskSpace() plugin.Finding {
	free, err := DiskFree(c.State)
	if err != nil {
		return plugin.Finding{ID: "disk_space", Level: plugin.LevelWarning, Message: err.Error(), Fix: "check " + c.State}
	}
	if free < lowDisk {
		return plugin.Finding{
			ID: "disk_space", Level: plugin.LevelWarning,
			Message: fmt.Sprintf("%.1f GiB are free for disks", float64(free)/(1<<30)),
			Fix:     "free space on the file system of " + c.State,
		}
	}
	return ok("disk_space", "%.0f GiB are free for disks", float64(free)/(1<<30))
}

func memory() plugin.Finding {
	_, free, err := Memory()
	if err != nil {
		return plugin.Finding{ID: "memory", Level: plugin.LevelWarning, Message: err.Error(), Fix: "mount /proc"}
	}
	if free < lowMemory {
		return plugin.Finding{
			ID: "memory", Level: plugin.LevelWarning,
			Message: fmt.Sprintf("%d MiB of memory are free", free>>20), Fix: "stop something, or use smaller profiles",
		}
	}
	return ok("memory", "%.1f GiB of memory are free", float64(free)/(1<<30))
}

func (c Check) templates() plugin.Finding {
	entries, err := c.Catalog.List()
	if err != nil {
		return plugin.Finding{ID: "templates", Level: plugin.LevelMissing, Message: err.Error(), Fix: "check template_dir"}
	}
	var good []string
	for _, e := range entries {
		if e.Err == nil && !e.Shadowed {
			good = append(good, e.Name)
		}
	}
	if len(good) == 0 {
		return plugin.Finding{
			ID: "templates", Level: plugin.LevelWarning, Message: "there is no usable template",
			Fix: "build the guest image, or set templates or template_dir",
		}
	}
	return ok("templates", "templates: %s", strings.Join(good, ", "))
}

// DiskFree gives the bytes a file system has left.
func DiskFree(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// Memory gives the host's memory in bytes, all of it and what is available.
func Memory() (total, available uint64, err error) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, err := strconv.ParseUint(f[1], 10, 64)
		switch {
		case err != nil:
			continue
		case f[0] == "MemTotal:":
			total = kib << 10
		case f[0] == "MemAvailable:":
			available = kib << 10
		}
	}
	if total == 0 {
		return 0, 0, fmt.Errorf("no MemTotal in /proc/meminfo")
	}
	return total, available, nil
}
