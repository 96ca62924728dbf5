package tap

import (
	"errors"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Device is the way to the kernel's taps.
const Device = "/dev/net/tun"

// Open gives the descriptor of an existing tap of this network namespace.
// fault.Precondition when it is not there: making one would put a guest on the
// network without its rules. fault.Locked when another program holds it.
func Open(name string) (*os.File, error) {
	if err := isTap(name); err != nil {
		return nil, err
	}
	return attach(name)
}

// Unplugged makes a tap that is on no bridge and never up, for a guest without a
// network. It goes when the last who holds it has ended. The kernel chooses its name.
func Unplugged() (*os.File, error) { return attach(unplugged + "%d") }

const unplugged = "altmpl"

func attach(name string) (*os.File, error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "open %s: %w", Device, err).WithHint("modprobe tun")
	}
	if err := set(fd, name); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// set puts the descriptor, which is on no tap, on that one.
func set(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if errors.Is(err, unix.EBUSY) {
		return fault.New(fault.Locked, "tap %s is in use: %w", name, err)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "open tap %s: %w", name, err)
	}
	return nil
}

// Counters are bytes as the guest sees them.
type Counters struct{ Received, Sent uint64 }

// Read gives the counters of the named taps; those that are not there are left
// out. What the host receives from a tap is what the guest has sent.
func Read(names []string) (map[string]Counters, error) {
	out := map[string]Counters{}
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, fault.New(fault.Unavailable, "read counters of %s: %w", name, err)
		}
		if s := link.Attrs().Statistics; s != nil {
			out[name] = Counters{Received: s.TxBytes, Sent: s.RxBytes}
		}
	}
	return out, nil
}
