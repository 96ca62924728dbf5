package tap

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Replug moves a descriptor from its Unplugged tap to an existing one, for every
// program that has it. What QEMU has agreed on with its guest goes with it: the length
// of the header before each frame, and what the guest leaves to its card. Both belong to
// a tap and not to the descriptor. The tap that it leaves is gone; after an error the
// descriptor may be on none, and whoever has it had better be ended.
// It fails like Open.
func Replug(f *os.File, name string) error {
	if err := isTap(name); err != nil {
		return err
	}
	if err := move(f, name); err != nil {
		return fmt.Errorf("move guest to tap %s: %w", name, err)
	}
	return nil
}

func move(f *os.File, name string) error {
	fd := int(f.Fd())
	now, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNGETIFF, now)
	}
	if err != nil {
		return fault.New(fault.Internal, "ask for its present tap: %w", err)
	}
	if !strings.HasPrefix(now.Name(), unplugged) {
		return fault.New(fault.Internal, "it is on %s, which is not for a guest without a network", now.Name())
	}
	header, err := unix.IoctlGetUint32(fd, unix.TUNGETVNETHDRSZ)
	if err != nil {
		return fault.New(fault.Internal, "read length of header: %w", err)
	}
	offloads, err := offloads(now.Name())
	if err != nil {
		return err
	}
	// A descriptor leaves its tap only when that goes.
	old, err := netlink.LinkByName(now.Name())
	if err == nil {
		err = netlink.LinkDel(old)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "remove tap %s: %w", now.Name(), err)
	}
	if err := set(fd, name); err != nil {
		return err
	}
	err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, int(header))
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}
	if err != nil {
		return fault.New(fault.Internal, "set up tap: %w", err)
	}
	return nil
}

// offloadOf is how the kernel names on a tap what TUNSETOFFLOAD has set.
var offloadOf = map[string]int{
	"tx-checksum-ip-generic": unix.TUN_F_CSUM, "tx-tcp-segmentation": unix.TUN_F_TSO4,
	"tx-tcp6-segmentation": unix.TUN_F_TSO6, "tx-tcp-ecn-segmentation": unix.TUN_F_TSO_ECN,
	"tx-udp-segmentation": unix.TUN_F_USO4 | unix.TUN_F_USO6, // since Linux 6.2, both or none
}

// offloads gives what TUNSETOFFLOAD was last told of a tap.
func offloads(name string) (int, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return 0, fault.New(fault.Unavailable, "ask for features of %s: %w", name, err)
	}
	defer e.Close()
	on, err := e.Features(name)
	if err != nil {
		return 0, fault.New(fault.Unavailable, "ask for features of %s: %w", name, err)
	}
	flags := 0
	for feature, flag := range offloadOf {
		if on[feature] {
			flags |= flag
		}
	}
	return flags, nil
}

// isTap makes sure that there is one of that name.
func isTap(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return fault.New(fault.Precondition, "tap %s does not exist", name).
			WithHint("attach the sandbox to its network first")
	}
	if err != nil {
		return fault.New(fault.Unavailable, "look for tap %s: %w", name, err)
	}
	if tun, ok := link.(*netlink.Tuntap); !ok || tun.Mode != netlink.TUNTAP_MODE_TAP {
		return fault.New(fault.Precondition, "link %s is a %s, not a tap", name, link.Type()).
			WithHint("remove or rename that link")
	}
	return nil
}
