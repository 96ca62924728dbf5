package flows

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Timeout bounds one netlink request.
const Timeout = 5 * time.Second

// Flow is one tracked connection as its opener sees it.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            uint8
	DestinationPort     uint16 // 0 for protocols without ports
}

// Cut forgets every IPv4 flow that match names, and says how many there were.
// The next packet of such a flow counts as a new connection.
func Cut(ctx context.Context, match func(Flow) bool) (uint, error) {
	if err := ctx.Err(); err != nil {
		return 0, classify(err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, classify(err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(Timeout); err != nil {
		return 0, classify(err)
	}
	n, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter(match))
	return n, classify(err)
}

type filter func(Flow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f filter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	source, ok := netip.AddrFromSlice(flow.Forward.SrcIP)
	if !ok {
		return false
	}
	destination, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if !ok {
		return false
	}
	return f(Flow{
		Source: source.Unmap(), Destination: destination.Unmap(),
		Protocol: flow.Forward.Protocol, DestinationPort: flow.Forward.DstPort,
	})
}

func classify(err error) error {
	if err == nil {
		return nil
	}
	class := fault.Internal
	switch {
	case errors.Is(err, unix.EPERM):
		class = fault.Denied
	case errors.Is(err, unix.EAGAIN), errors.Is(err, context.DeadlineExceeded):
		class = fault.Timeout
	case errors.Is(err, netlink.ErrDumpInterrupted):
		class = fault.Conflict
	case errors.Is(err, context.Canceled):
		class = fault.Unavailable
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EINVAL):
		class = fault.Unsupported
	}
	return fault.New(class, "cut connections: %w", err)
}
