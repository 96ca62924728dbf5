package accel

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// errRootOnly: no group but root's may open the device.
var errRootOnly = errors.New("is open to root only")

// cpuFlags are what the kernel says the processor can; empty when unknown.
func cpuFlags() []string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(raw)) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			return strings.Fields(flags)
		}
	}
	return nil
}

// Remedies by what the host lacks.
const (
	fixFirmware  = "enable virtualisation (VT-x, AMD-V) in the machine's firmware"
	fixNested    = "this machine is a VM: have nested virtualisation enabled for it on the host above, or take one that is no VM"
	fixRemembers = "; what was measured holds until the next boot, or until accel.json in the plugin's state folder is removed"
)

// remedy says what makes KVM usable. err is why it cannot be used at all, nil
// when it can and is slow.
func remedy(err error, device string, flags []string) string {
	guest := slices.Contains(flags, "hypervisor")
	intel, amd := slices.Contains(flags, "vmx"), slices.Contains(flags, "svm")
	switch {
	case err == nil && guest:
		return fixNested + fixRemembers
	case err == nil:
		return "another hypervisor seems to hold the processor: stop it" + fixRemembers
	case errors.Is(err, errRootOnly):
		return "chgrp kvm " + device + " && chmod 0660 " + device +
			"; udev does so where the package qemu-system-x86 or systemd has its rule, a container has to be given the device with that group"
	case errors.Is(err, fs.ErrPermission):
		return "the device may not be opened, not even by root: in a container, allow it (devices.allow, DeviceAllow=" + device + ")"
	case errors.Is(err, fs.ErrNotExist) && intel:
		return "modprobe kvm_intel; in a container, pass " + device + " in"
	case errors.Is(err, fs.ErrNotExist) && amd:
		return "modprobe kvm_amd; in a container, pass " + device + " in"
	case errors.Is(err, fs.ErrNotExist) && guest:
		return fixNested
	case errors.Is(err, fs.ErrNotExist):
		return fixFirmware + ", then modprobe kvm_intel or kvm_amd"
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP):
		return "another hypervisor (VirtualBox, Xen) holds the processor, or virtualisation is switched off: stop it, or " + fixFirmware
	case guest:
		return fixNested
	}
	return fixFirmware + "; dmesg | grep -i kvm tells more"
}
