package links

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Timeout bounds one netlink request.
const Timeout = 5 * time.Second

// Handle is a netlink socket of the current network namespace. Close it.
type Handle struct{ *netlink.Handle }

// Open opens a Handle. A context that is already done is an error.
func Open(ctx context.Context) (Handle, error) {
	if err := ctx.Err(); err != nil {
		return Handle{}, classify(err, "open netlink")
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Handle{}, classify(err, "open netlink")
	}
	timeout := Timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), time.Millisecond))
	}
	if err := h.SetSocketTimeout(timeout); err != nil {
		h.Close()
		return Handle{}, classify(err, "set netlink timeout")
	}
	return Handle{h}, nil
}

// Addresses lists the host's IPv4 addresses on every interface.
func (h Handle) Addresses() ([]netip.Addr, error) {
	list, err := h.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, classify(err, "list addresses")
	}
	var out []netip.Addr
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			out = append(out, addr)
		}
	}
	return out, nil
}

// classify turns an errno into a classified error that says what was tried.
func classify(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	class, hint := fault.Internal, ""
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		class = fault.Timeout
	case errors.Is(err, context.Canceled):
		class = fault.Unavailable
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS):
		class, hint = fault.Denied, "the network plugin needs CAP_NET_ADMIN and a writable /proc/sys/net"
	case errors.Is(err, unix.EEXIST):
		class = fault.Exists
	case errors.Is(err, unix.EBUSY):
		class = fault.Locked
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT), notFound(err):
		class = fault.NotFound
	case errors.Is(err, unix.EOPNOTSUPP):
		class = fault.Unsupported
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
		class = fault.Exhausted
	}
	f := fault.New(class, "%s: %w", fmt.Sprintf(format, args...), err)
	if hint != "" {
		f = f.WithHint("%s", hint)
	}
	return f
}

func notFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}
