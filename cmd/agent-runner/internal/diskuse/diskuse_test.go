package diskuse

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/fault"
)

type guest struct {
	t *testing.T
	layout.Layout
}

func newGuest(t *testing.T) guest {
	g := guest{t, layout.Layout{Root: t.TempDir()}}
	g.put("/sys/block/vda/serial", "root")
	g.put("/sys/block/vda/dev", "254:0\n")
	g.put("/sys/block/sda/device/vpd_pg80", "\x00\x80\x00\x08vol-1   ")
	g.put("/sys/block/sda/dev", "8:0\n")
	g.put("/sys/block/sda/sda1/partition", "1\n")
	g.put("/sys/block/sda/sda1/dev", "8:1\n")
	g.put("/sys/block/sda/queue/x", "")
	g.put("/dev/sda", "")
	g.put("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/vdz partition 1 0 -2\n")
	g.process("1", "mnt:[1]", "21 1 254:0 / / rw,relatime - ext4 /dev/root rw\n")
	return g
}

func (g guest) put(path, text string) {
	g.t.Helper()
	path = g.At(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		g.t.Fatal(err)
	}
}

func (g guest) process(pid, namespace, mounts string) {
	g.t.Helper()
	g.put("/proc/"+pid+"/mountinfo", mounts)
	g.link("/proc/"+pid+"/ns/mnt", namespace)
	g.link("/proc/"+pid+"/fd/0", "/dev/null")
}

func (g guest) link(path, to string) {
	g.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(g.At(path)), 0o755), os.Symlink(to, g.At(path))); err != nil {
		g.t.Fatal(err)
	}
}

func TestUsers(t *testing.T) {
	const other = "21 1 254:0 / / rw - ext4 /dev/root rw\n"
	for name, c := range map[string]struct {
		serial string
		use    func(g guest)
		want   []string
	}{
		"free":              {"vol-1", func(guest) {}, nil},
		"unknown":           {"vol-2", func(guest) {}, nil},
		"root":              {"root", func(guest) {}, []string{"/"}},
		"mounted partition": {"vol-1", func(g guest) { g.process("2", "mnt:[2]", other+"30 21 8:1 / /mnt/a\\040b rw - ext4 /dev/sda1 rw\n") }, []string{`/mnt/a\040b`}},
		"by name":           {"vol-1", func(g guest) { g.process("2", "mnt:[2]", other+"30 21 0:44 / /mnt rw shared:1 - btrfs /dev/sda rw\n") }, []string{"/mnt"}},
		"swap":              {"vol-1", func(g guest) { g.put("/proc/swaps", "/dev/sda1 partition 1 0 -2\n") }, []string{"swap on /dev/sda1"}},
		"below a mapper":    {"vol-1", func(g guest) { g.put("/sys/block/sda/sda1/holders/dm-0/x", "") }, []string{"/dev/dm-0"}},
		"open":              {"vol-1", func(g guest) { g.process("7", "mnt:[1]", ""); g.link("/proc/7/fd/4", "/dev/sda") }, []string{"process 7"}},
		"open by udev": {"vol-1", func(g guest) {
			g.process("7", "mnt:[1]", "")
			g.put("/proc/7/comm", "(udev-worker)\n")
			g.link("/proc/7/fd/4", "/dev/sda")
		}, nil},
		"several": {"vol-1", func(g guest) {
			g.put("/sys/block/sda/holders/md0/x", "")
			g.put("/proc/swaps", "/dev/sda partition 1 0 -2\n")
		}, []string{"/dev/md0", "swap on /dev/sda"}},
		"virtio-blk by number": {"root", func(g guest) { g.process("2", "mnt:[2]", "30 21 254:0 / /again rw - ext4 x rw\n") }, []string{"/", "/again"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			c.use(g)
			got, err := Of(t.Context(), g.Layout, c.serial)
			if err != nil || !cmp.Equal(got, c.want) {
				t.Errorf("users %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestNoSerial(t *testing.T) {
	g := newGuest(t)
	g.put("/sys/block/loop0/dev", "7:0")
	if _, err := Of(t.Context(), g.Layout, ""); !errors.Is(err, fault.Invalid) {
		t.Errorf("error %v", err)
	}
}
