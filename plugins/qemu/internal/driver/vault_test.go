package driver

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// Other templates come and go; the next VM shares the memory of the one that runs.
func TestMemoryOfARunningVMIsCopiedOnce(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	key := l.keys(d)[0]
	copied := func(key string) uint64 {
		t.Helper()
		f, err := d.vault.Take(testContext(t), d.memory, key)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	others := func() {
		t.Helper()
		for i := range 8 {
			dir := filepath.Join(l.state, "memory", strconv.Itoa(i))
			err := os.MkdirAll(dir, 0o700)
			if err := errors.Join(err, os.WriteFile(filepath.Join(dir, memory.RAMName), make([]byte, 4096), 0o600)); err != nil {
				t.Fatal(err)
			}
			copied(strconv.Itoa(i))
		}
	}
	first := copied(key)
	others()
	if copied(key) != first {
		t.Error("the memory was copied again while a vm runs on it")
	}
	l.power(d, hypervisor.PowerOff, 0)
	others()
	if copied(key) == first {
		t.Error("the memory is kept while nothing runs on it")
	}
	l.destroyAndCheck(d)
}
