package machine

import (
	"slices"
	"strings"
	"testing"
)

func testMachine() Machine {
	return Machine{
		Name: "agentlab-1042", UUID: "11111111-2222-8333-8444-555555555555",
		Accel: Accel{Name: "tcg", CPU: "qemu64,-svm"}, TBMiB: 256, Cores: 2, MemoryBytes: 1<<30 + 1,
		Kernel: "/img/vmlinuz", Initrd: "/img/initrd.img", Cmdline: "root=/dev/vda quiet",
		Disk: "/state/vms/1042/disk.qcow2", Bases: []string{`/img/a "b",c=d.qcow2`}, Seed: "/state/vms/1042/seed.iso",
		MAC: "52:54:00:00:00:01", Monitor: 3, Channel: 4, Tap: 5,
	}
}

func pair(args []string, key, value string) bool {
	for i := range len(args) - 1 {
		if args[i] == key && args[i+1] == value {
			return true
		}
	}
	return false
}

func TestArgsHoldWhatGuestsRelyOn(t *testing.T) {
	args := testMachine().Args()
	all := strings.Join(args, " ")
	for _, want := range []string{
		"-S", "-no-user-config", "-nodefaults", "-accel tcg,thread=multi,tb-size=256", "size=1025M",
		"spawn=deny", "elevateprivileges=deny", "serial=root", "serial=seed", "virtconsole",
		"name=org.agentlab.runner.0", "virtio-scsi-pci", "virtio-rng-pci", "mac=52:54:00:00:00:01", "fd=5",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("arguments lack %q", want)
		}
	}
	for _, never := range []string{"balloon", "-vnc", "-gdb", "-monitor", "+svm", "+vmx"} {
		if strings.Contains(all, never) {
			t.Errorf("arguments hold %q", never)
		}
	}
	if !pair(args, "-append", "root=/dev/vda quiet") || !slices.Contains(args, "11111111-2222-8333-8444-555555555555") {
		t.Errorf("arguments = %q", args)
	}
}

// A path may hold what QEMU's own option syntax would split.
func TestOddPathsStayWhole(t *testing.T) {
	var found bool
	for _, arg := range testMachine().Args() {
		found = found || strings.Contains(arg, `"filename":"/img/a \"b\",c=d.qcow2"`)
	}
	if !found {
		t.Error("the base's path is not quoted as JSON")
	}
}

// Firmware and boot loader speak on the serial port, and there is no kernel to
// hand anything to.
func TestFirmwareBoot(t *testing.T) {
	m := testMachine()
	m.Kernel, m.Initrd, m.Cmdline, m.Bus = "", "", "", VirtioSCSI
	args := m.Args()
	all := strings.Join(args, " ")
	for _, never := range []string{"-kernel", "-append", "-initrd", "virtconsole", "virtio-blk"} {
		if strings.Contains(all, never) {
			t.Errorf("arguments hold %q: %q", never, all)
		}
	}
	if !pair(args, "-device", "isa-serial,chardev=console") || !pair(args, "-boot", "strict=on") {
		t.Errorf("arguments = %q", args)
	}
	controller := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "virtio-scsi-pci") })
	for _, want := range []string{"scsi-hd,", "scsi-cd,"} {
		if at := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, want) }); at < controller {
			t.Errorf("%s is at %d, its controller at %d", want, at, controller)
		}
	}
}
