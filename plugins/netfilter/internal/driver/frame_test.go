package driver_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/netlab"
)

const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

func mac(s string) []byte {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func ethernet(to, from string, kind uint16, payload []byte) []byte {
	f := append(append([]byte{}, mac(to)...), mac(from)...)
	return append(binary.BigEndian.AppendUint16(f, kind), payload...)
}

// vlan puts a tag into a frame.
func vlan(frame []byte, id uint16) []byte {
	f := append([]byte{}, frame[:12]...)
	f = binary.BigEndian.AppendUint16(f, 0x8100)
	f = binary.BigEndian.AppendUint16(f, id)
	return append(f, frame[12:]...)
}

func ipv4(from, to string, protocol byte, payload []byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], netip.MustParseAddr(from).AsSlice())
	copy(h[16:], netip.MustParseAddr(to).AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func echo(from, to, magic string) []byte {
	m := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, magic...)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return ipv4(from, to, 1, m)
}

// udp leaves out the checksum, as IPv4 permits.
func udp(from, to string, port uint16, magic string) []byte {
	u := binary.BigEndian.AppendUint16(nil, 4000)
	u = binary.BigEndian.AppendUint16(u, port)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(magic)))
	u = append(u, 0, 0)
	return ipv4(from, to, 17, append(u, magic...))
}

// arp carries the magic in the frame's padding.
func arp(operation uint16, senderMAC, senderIP, targetIP, magic string) []byte {
	a := []byte{0, 1, 8, 0, 6, 4}
	a = binary.BigEndian.AppendUint16(a, operation)
	a = append(a, mac(senderMAC)...)
	a = append(a, netip.MustParseAddr(senderIP).AsSlice()...)
	a = append(a, make([]byte, 6)...)
	a = append(a, netip.MustParseAddr(targetIP).AsSlice()...)
	return append(a, magic...)
}

func ipv6(from, to, magic string) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, 59, 255 // no next header
	binary.BigEndian.PutUint16(h[4:], uint16(len(magic)))
	copy(h[8:], netip.MustParseAddr(from).AsSlice())
	copy(h[24:], netip.MustParseAddr(to).AsSlice())
	return append(h, magic...)
}

// send writes raw frames to a link of a namespace.
func send(ns netns.NsHandle, link string, frames ...[]byte) error {
	return netlab.In(ns, func() error {
		fd, index, err := packetSocket(link)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index, Halen: 6}); err != nil {
				return err
			}
		}
		return nil
	})
}

func packetSocket(link string) (fd, index int, err error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return 0, 0, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return 0, 0, err
	}
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	return fd, i.Index, err
}

// seen reports whether a frame with the magic arrives on the link while act
// runs and for a moment after.
func seen(ns netns.NsHandle, link, magic string, act func() error) (bool, error) {
	found := false
	err := netlab.In(ns, func() error {
		fd, _, err := packetSocket(link)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := act(); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval(int64(50 * time.Millisecond))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		buffer := make([]byte, 4096)
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end) && !found; {
			n, from, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil {
				continue
			}
			l, ok := from.(*unix.SockaddrLinklayer)
			found = ok && l.Pkttype != unix.PACKET_OUTGOING && bytes.Contains(buffer[:n], []byte(magic))
		}
		return nil
	})
	return found, err
}
