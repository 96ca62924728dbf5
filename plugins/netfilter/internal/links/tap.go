package links

import (
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// MakeTap makes a persistent tap that only root can open: the hypervisor plugin
// opens it and hands the descriptor on. The tap is down and in no bridge.
// fault.Locked means that an interface of that name exists.
func MakeTap(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if gone(err) {
		return fault.New(fault.Precondition, "open /dev/net/tun: %w", err).WithHint("modprobe tun")
	}
	if err != nil {
		return classify(err, "open /dev/net/tun")
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return classify(err, "name tap %q", name)
	}
	// Without IFF_TUN_EXCL the call would take over somebody's tap.
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return classify(err, "make tap %s", name)
	}
	// A tap without an owner is open to every user.
	for _, request := range []uint{unix.TUNSETOWNER, unix.TUNSETGROUP} {
		if err := unix.IoctlSetInt(fd, request, 0); err != nil {
			return classify(err, "set owner of tap %s", name)
		}
	}
	return classify(unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1), "keep tap %s", name)
}
