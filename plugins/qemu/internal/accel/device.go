package accel

import (
	"fmt"
	"os"
	"syscall"
)

// Device is where the kernel offers KVM.
const Device = "/dev/kvm"

// DeviceGroups gives the groups that a VM's own user needs to open the device:
// none when it is open to all, else the device's group. An error when no group
// but root's would do, for that one is never given away.
func DeviceGroups(device string) ([]uint32, error) {
	st, err := os.Stat(device)
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("%s has no owner", device)
	}
	switch mode := st.Mode().Perm(); {
	case mode&0o006 == 0o006:
		return nil, nil
	case mode&0o060 == 0o060 && sys.Gid != 0:
		return []uint32{sys.Gid}, nil
	}
	return nil, fmt.Errorf("%s %w (mode %04o, group %d)", device, errRootOnly, st.Mode().Perm(), sys.Gid)
}
