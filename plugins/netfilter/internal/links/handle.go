package links

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Timeout bounds one netlink request.
const Timeout = 5 * time.Second

// dumps is how often a listing is asked for that something changed under.
const dumps = 5

// Handle is the netlink sockets of the current network namespace. Close it.
type Handle struct {
	*netlink.Handle
	own *nl.NetlinkSocket // for requests that the library does not make
}

// Open opens a Handle. A context that is already done is an error.
func Open(ctx context.Context) (Handle, error) {
	if err := ctx.Err(); err != nil {
		return Handle{}, classify(err, "open netlink")
	}
	lib, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Handle{}, classify(err, "open netlink")
	}
	own, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		lib.Close()
		return Handle{}, classify(err, "open netlink")
	}
	h := Handle{lib, own}
	timeout := Timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), time.Millisecond))
	}
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := errors.Join(lib.SetSocketTimeout(timeout), own.SetSendTimeout(&tv), own.SetReceiveTimeout(&tv)); err != nil {
		h.Close()
		return Handle{}, classify(err, "set netlink timeout")
	}
	return h, nil
}

// Close gives the sockets back.
func (h Handle) Close() {
	h.Handle.Close()
	h.own.Close()
}

// request is one that the library does not make.
func (h Handle) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: h.own, Seq: req.Seq}}
	return req
}

// whole asks for a listing again when a link or address came or went meanwhile:
// the kernel then says that it may lack something.
func whole[T any](dump func() (T, error)) (T, error) {
	for range dumps - 1 {
		if out, err := dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return dump()
}

// Addresses lists the host's IPv4 addresses on every interface.
func (h Handle) Addresses() ([]netip.Addr, error) {
	list, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, unix.AF_INET) })
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
	case errors.Is(err, netlink.ErrDumpInterrupted):
		class, hint = fault.Conflict, "links of this host come and go all the time, try again"
	case errors.Is(err, unix.EEXIST):
		class = fault.Exists
	case errors.Is(err, unix.EBUSY):
		class = fault.Locked
	case gone(err):
		class, hint = fault.Conflict, "the interface went away meanwhile, try again"
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

func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
