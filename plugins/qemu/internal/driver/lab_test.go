package driver

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	inNamespace = "AGENTLAB_TEST_NETNS"
	standIn     = "AGENTLAB_TEST_STANDIN"
	testVMID    = 1001
	testOwner   = "agentlab:11111111-2222-3333-4444-555555555555/sbx_test"
	testMAC     = "52:54:00:00:10:01"
)

// TestMain moves the tests into a network namespace of their own, where they
// may make taps, and runs the part of a plugin that is killed in mid-call.
func TestMain(m *testing.M) {
	if plan := os.Getenv(standIn); plan != "" {
		playStandIn(plan)
		os.Exit(0)
	}
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		// No namespaces here: tests that need one say so.
		os.Exit(m.Run())
	}
}

func needQEMU(t *testing.T) {
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

// Boot sectors: what the guest does.
var (
	guestIdles     = []byte{0xfb, 0xf4, 0xeb, 0xfc}                         // sti; hlt; jmp
	guestPowersOff = []byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4} // out 0x604, 0x2000
	guestReboots   = []byte{0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4}       // out 0xcf9, 6
)

type lab struct {
	t      *testing.T
	state  string
	config Config
}

// newLab makes a state folder that users of VMs can pass, and two taps.
func newLab(t *testing.T, guest []byte) *lab {
	t.Helper()
	needQEMU(t)
	dir, err := os.MkdirTemp("", "agentlab-qemu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	state, images := filepath.Join(dir, "state"), filepath.Join(dir, "images")
	for _, d := range []string{dir, state, images} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	l := &lab{t: t, state: state, config: Config{
		TemplateDir: images, VMIDFirst: 1000, VMIDLast: 1999, Accel: "tcg", QEMUBinary: "qemu-system-x86_64",
		TBMiB: 32, UIDBase: 400_000 + uint32(os.Getpid()%1000)*2000,
	}}
	makeTemplate(t, filepath.Join(images, "tiny-1"), 9000, "tiny", guest)
	for _, vmid := range []int{testVMID, testVMID + 1} {
		l.makeTap(fmt.Sprintf(InterfacePattern, vmid))
	}
	t.Cleanup(l.killAll)
	return l
}

func (l *lab) makeTap(name string) {
	l.t.Helper()
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(link); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = netlink.LinkDel(link) })
}

func makeTemplate(t *testing.T, dir string, vmid uint32, name string, code []byte) {
	t.Helper()
	sector := make([]byte, 1<<20)
	copy(sector, code)
	binary.LittleEndian.PutUint16(sector[510:], 0xaa55)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	raw, qcow := filepath.Join(dir, "raw"), filepath.Join(dir, "root.qcow2")
	manifest, err := json.Marshal(map[string]any{
		"format": 1, "name": name, "vmid": vmid, "version": "1", "arch": "x86_64", "disk": "root.qcow2",
		"disk_format": "qcow2", "disk_virtual_bytes": len(sector), "ssh_user": "agent",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(raw, sector, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err = errors.Join(os.Remove(raw), os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o644), os.Chmod(qcow, 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// killAll ends whatever this lab's VMs left running, and checks that the test
// itself had not lost any.
func (l *lab) killAll() {
	d := l.driver()
	vmids, err := d.store.List()
	if err != nil {
		l.t.Error(err)
	}
	for _, vmid := range vmids {
		if v, err := d.store.Load(vmid); err == nil {
			if err := d.kill(context.Background(), v.UID, v.Mark()); err != nil {
				l.t.Error(err)
			}
		}
	}
}

// driver opens the state anew, as a restarted plugin does.
func (l *lab) driver() *Driver {
	l.t.Helper()
	d, err := New(l.config, l.state, hclog.NewNullLogger())
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

func testRef() hypervisor.Ref { return hypervisor.Ref{VMID: testVMID, Owner: testOwner} }

func testRequest() hypervisor.CreateRequest {
	return hypervisor.CreateRequest{
		Ref: testRef(), Name: "box", Template: "9000", Cores: 1, MemoryBytes: 64 << 20,
		NIC:  hypervisor.NIC{Bridge: "vmbr1", MAC: testMAC, AddressCIDR: "10.77.0.12/16"},
		Seed: hypervisor.Seed{UserData: []byte("#cloud-config\n{}"), MetaData: []byte(`{"instance-id":"a"}`)},
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (l *lab) create(d *Driver) hypervisor.VM {
	l.t.Helper()
	vm, err := d.CreateVM(testContext(l.t), testRequest(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return vm
}

func (l *lab) power(d *Driver, target hypervisor.Power, grace time.Duration) hypervisor.VM {
	l.t.Helper()
	vm, err := d.SetPower(testContext(l.t), testRef(), target, grace)
	if err != nil {
		l.t.Fatalf("set power %s: %v", target, err)
	}
	return vm
}

func (l *lab) waitPower(d *Driver, want hypervisor.Power) {
	l.t.Helper()
	ctx := testContext(l.t)
	for ctx.Err() == nil {
		vm, err := d.GetVM(ctx, testRef())
		if err != nil {
			l.t.Fatal(err)
		}
		if vm.Power == want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.t.Fatalf("vm did not become %s", want)
}

// pids gives the programs that run as the VM's user, by /proc and not by what
// the driver has written down.
func (l *lab) pids() []string {
	l.t.Helper()
	pids, err := procfs.OfUser(l.config.UIDBase + testVMID)
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, pid := range pids {
		out = append(out, strconv.Itoa(pid))
	}
	return out
}
