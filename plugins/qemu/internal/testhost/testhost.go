package testhost

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

const inNamespace = "AGENTLAB_TEST_NETNS"

// CounterAt is where Count counts.
const CounterAt = 0x600

// Boot sectors: what a guest does. Idle waits for ever, Busy does so with a
// full core, PowerOff and Reboot do it at once. Count counts the ticks of its
// clock, 18 in a second, in four bytes at CounterAt.
var (
	Count = []byte{
		0xfb, 0x31, 0xc0, 0x8e, 0xd8, // sti; xor ax, ax; mov ds, ax
		0x66, 0xc7, 0x06, 0x00, 0x06, 0, 0, 0, 0, // mov dword [0x600], 0
		0x66, 0xff, 0x06, 0x00, 0x06, 0xf4, 0xeb, 0xf8, // inc dword [0x600]; hlt; jmp to inc
	}

	Idle     = []byte{0xfb, 0xf4, 0xeb, 0xfc}                         // sti; hlt; jmp
	Busy     = []byte{0xeb, 0xfe}                                     // jmp $
	PowerOff = []byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4} // out 0x604, 0x2000
	Reboot   = []byte{0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4}       // out 0xcf9, 6
)

// Main is the body of TestMain: it runs the tests in a network namespace of
// their own and gives the exit code.
func Main(m *testing.M) int {
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		// No namespaces here: the tests that need one say so.
		return m.Run()
	}
	return 0
}

// Need skips the test where guests cannot run.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: every VM gets a user of its own")
	}
	if os.Getenv(inNamespace) == "" {
		t.Skip("needs network namespaces")
	}
	for _, name := range []string{"qemu-system-x86_64", "qemu-img"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name)
		}
	}
}

// Folders makes a state folder and one for images, both open to all to pass.
func Folders(t testing.TB) (state, images string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agentlab-qemu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	state, images = filepath.Join(dir, "state"), filepath.Join(dir, "images")
	for _, d := range []string{dir, state, images} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return state, images
}

// Tap makes a persistent tap, as the network plugin does. The test removes it
// at its end.
func Tap(t testing.TB, name string) {
	t.Helper()
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
}

// Template makes the image folder of template 9000, "tiny": one boot sector on
// a disk of 1 MiB.
func Template(t testing.TB, images string, guest []byte) {
	t.Helper()
	template(t, images, guest, nil)
}

// KernelTemplate makes the same with the guest as a kernel, which boots without
// firmware's help, as AgentLab's own images do.
func KernelTemplate(t testing.TB, images string, guest []byte) {
	t.Helper()
	const realMode = 512 // where a kernel of the oldest protocol begins
	kernel := make([]byte, 16<<10)
	copy(kernel[realMode:], guest)
	template(t, images, nil, kernel)
}

func template(t testing.TB, images string, guest, kernel []byte) {
	t.Helper()
	dir := filepath.Join(images, "tiny-1")
	disk := make([]byte, 1<<20)
	copy(disk, guest)
	binary.LittleEndian.PutUint16(disk[510:], 0xaa55)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	qcow := filepath.Join(dir, "root.qcow2")
	keys := map[string]any{
		"format": 1, "name": "tiny", "vmid": 9000, "version": "1", "arch": "x86_64", "disk": "root.qcow2",
		"disk_format": "qcow2", "disk_virtual_bytes": len(disk), "ssh_user": "agent",
	}
	if kernel != nil {
		keys["kernel"] = "vmlinuz"
		if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), kernel, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	manifest, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(qcow, converted(t, disk), 0o644), os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o644),
		os.Chmod(qcow, 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// disks are those that were converted already, by their contents.
var disks struct {
	mu   sync.Mutex // mu guards: qcow
	qcow map[string][]byte
}

// converted gives a disk as qcow2.
func converted(t testing.TB, disk []byte) []byte {
	t.Helper()
	disks.mu.Lock()
	defer disks.mu.Unlock()
	if qcow, ok := disks.qcow[string(disk)]; ok {
		return qcow
	}
	dir := t.TempDir()
	raw, out := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	qcow, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if disks.qcow == nil {
		disks.qcow = map[string][]byte{}
	}
	disks.qcow[string(disk)] = qcow
	return qcow
}

// Script writes a program of the shell. No program that another test starts in the
// meantime inherits the open file, which would keep this one from being run.
func Script(t testing.TB, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755) //nolint:gosec // it is to be run
	syscall.ForkLock.RUnlock()
	if err := errors.Join(err, os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
}
