package driver

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// lockBase locks the bytes that QEMU reads as "somebody writes, and shares nothing".
// To read the file is enough for that.
func lockBase(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 100, Len: 200}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
}

// Everybody may read what disks lie on. Nobody can keep VMs from starting by it.
func TestLockedBasesStopNobody(t *testing.T) {
	l := newMemoryLab(t)
	d := l.driver()
	lockBase(t, filepath.Join(l.config.TemplateDir, "tiny-1", "root.qcow2"))
	l.warm(d)
	lockBase(t, d.memory.Path(l.keys(d)[0], memory.DiskName))
	l.create(d)
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayMemory {
		t.Errorf("start = %+v", vm.Start)
	}
	l.power(d, hypervisor.PowerOff, 0)
	l.power(d, hypervisor.PowerOn, 0)
	l.destroyAndCheck(d)
}
