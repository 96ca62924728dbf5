package diskuse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/fault"
)

// maxUsers bounds the answer; that there is one is what matters.
const maxUsers = 64

// Of lists what uses the disk with this serial number, its partitions included:
// mount points in any namespace, swap, block devices on top of it, programs that
// have it open. A disk that is not there is not used.
func Of(ctx context.Context, l layout.Layout, serial string) ([]string, error) {
	if serial == "" {
		return nil, fault.New(fault.Invalid, "a disk without serial number cannot be told from others")
	}
	d, err := find(l, serial)
	if err != nil || d == nil {
		return nil, err
	}
	users := map[string]bool{}
	for _, p := range d.parts {
		holders, _ := os.ReadDir(filepath.Join(p.sys, "holders"))
		for _, h := range holders {
			users["/dev/"+h.Name()] = true
		}
	}
	if err := d.swaps(l, users); err != nil {
		return nil, err
	}
	if err := d.programs(ctx, l, users); err != nil {
		return nil, err
	}
	if len(users) == 0 {
		claimed, err := d.claimed(l)
		if err != nil {
			return nil, err
		}
		if claimed {
			users["the kernel"] = true
		}
	}
	var out []string
	for u := range users {
		out = append(out, u)
	}
	slices.Sort(out)
	return out[:min(len(out), maxUsers)], nil
}

// disk is a block device and its partitions.
type disk struct{ parts []part }

// part is a block device as a whole.
type part struct {
	name   string // below /dev
	sys    string // its directory in /sys
	number string // "252:16"
}

// find looks through all disks. Two with one serial are one: both must be free.
func find(l layout.Layout, serial string) (*disk, error) {
	entries, err := os.ReadDir(l.At("/sys/block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var d disk
	for _, e := range entries {
		sys := filepath.Join(l.At("/sys/block"), e.Name())
		if serialOf(sys) != serial {
			continue
		}
		d.add(sys, e.Name())
		inner, _ := os.ReadDir(sys)
		for _, i := range inner {
			if _, err := os.Stat(filepath.Join(sys, i.Name(), "partition")); err == nil {
				d.add(filepath.Join(sys, i.Name()), i.Name())
			}
		}
	}
	if len(d.parts) == 0 {
		return nil, nil
	}
	return &d, nil
}

func (d *disk) add(sys, name string) {
	b, _ := os.ReadFile(filepath.Join(sys, "dev"))
	d.parts = append(d.parts, part{name: strings.ReplaceAll(name, "!", "/"), sys: sys, number: strings.TrimSpace(string(b))})
}

// serialOf reads what virtio-blk and NVMe tell as text, and SCSI as a page of
// which the first four bytes are a header.
func serialOf(sys string) string {
	for _, name := range []string{"serial", "device/serial"} {
		if b, err := os.ReadFile(filepath.Join(sys, name)); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	b, err := os.ReadFile(filepath.Join(sys, "device/vpd_pg80"))
	if err != nil || len(b) < 4 {
		return ""
	}
	return strings.Trim(string(b[4:]), " \x00")
}

func (d *disk) swaps(l layout.Layout, users map[string]bool) error {
	b, err := os.ReadFile(l.At("/proc/swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read swaps: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if field := strings.Fields(line); len(field) > 0 && d.isNode(field[0]) {
			users["swap on "+field[0]] = true
		}
	}
	return nil
}

func (d *disk) isNode(path string) bool {
	return slices.ContainsFunc(d.parts, func(p part) bool { return path == "/dev/"+p.name })
}

// programs looks at each process: at its mounts, once for each namespace, and
// at its open files. Processes come and go, and what is gone uses nothing.
func (d *disk) programs(ctx context.Context, l layout.Layout, users map[string]bool) error {
	seen := map[string]bool{}
	pids, err := filepath.Glob(l.At("/proc/[0-9]*"))
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, dir := range pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		namespace, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		if err != nil || !seen[namespace] {
			seen[namespace] = true
			d.mounts(filepath.Join(dir, "mountinfo"), users)
		}
		if isUdev(dir) {
			continue
		}
		files, _ := os.ReadDir(filepath.Join(dir, "fd"))
		for _, f := range files {
			if path, err := os.Readlink(filepath.Join(dir, "fd", f.Name())); err == nil && d.isNode(path) {
				users["process "+filepath.Base(dir)] = true
			}
		}
	}
	return nil
}

// isUdev: udev looks at each disk that somebody has closed, for a moment, and does
// not mind that it goes away.
func isUdev(process string) bool {
	b, _ := os.ReadFile(filepath.Join(process, "comm"))
	name := strings.TrimSpace(string(b))
	return name == "(udev-worker)" || name == "systemd-udevd"
}

// mounts notes the mount points of the disk: by number, or by name for file
// systems that have a number of their own.
func (d *disk) mounts(path string, users map[string]bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		head, tail, _ := strings.Cut(line, " - ")
		field, source := strings.Fields(head), strings.Fields(tail)
		if len(field) < 5 {
			continue
		}
		if d.isNumber(field[2]) || len(source) > 1 && d.isNode(source[1]) {
			users[field[4]] = true
		}
	}
}

func (d *disk) isNumber(number string) bool {
	return slices.ContainsFunc(d.parts, func(p part) bool { return p.number != "" && p.number == number })
}

// claimed asks the kernel, which knows of every use that the above may miss: an
// exclusive open fails while anything of the kernel's holds the device.
func (d *disk) claimed(l layout.Layout) (bool, error) {
	for _, p := range d.parts {
		path := l.At("/dev/" + p.name)
		st, err := os.Stat(path)
		if err != nil || st.Mode()&os.ModeDevice == 0 {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		switch {
		case errors.Is(err, unix.EBUSY):
			return true, nil
		case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOMEDIUM):
		case err != nil:
			return false, fmt.Errorf("open %s: %w", path, err)
		default:
			_ = unix.Close(fd)
		}
	}
	return false, nil
}
