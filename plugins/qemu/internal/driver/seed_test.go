package driver

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/seediso"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
)

// Whatever a guest that took over its QEMU makes of its seed disk, the plugin does
// not choke on it, and a repeat of the create makes it good.
func TestSeedOfAHostileGuest(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"huge":   func(path string) error { return os.Truncate(path, 1<<40) },
		"larger": func(path string) error { return os.Truncate(path, seediso.MaxBytes+1) },
		"link":   func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) },
		"pipe":   func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, testhost.Idle)
			d := l.driver()
			l.create(d)
			v, err := d.store.Load(testVMID)
			if err != nil {
				t.Fatal(err)
			}
			path := d.store.Path(testVMID, seedName)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			if _, err := d.identity(v); err == nil {
				t.Error("an identity was read from it")
			}
			l.create(d)
			id, err := d.identity(v)
			if err != nil || !strings.Contains(string(id.Seed.UserData), "cloud-config") {
				t.Errorf("after a repeat: %q, %v", id.Seed.UserData, err)
			}
			l.destroyAndCheck(d)
		})
	}
}

// The largest seed there can be is read.
func TestLargestSeed(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	req := testRequest()
	for _, doc := range []*[]byte{&req.Seed.UserData, &req.Seed.MetaData, &req.Seed.NetworkConfig} {
		*doc = []byte(strings.Repeat("x", 1<<20))
	}
	if _, err := d.CreateVM(testContext(t), req, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.readSeed(testVMID); err != nil {
		t.Error(err)
	}
	l.destroyAndCheck(d)
}
