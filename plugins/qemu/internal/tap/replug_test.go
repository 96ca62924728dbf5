package tap_test

import (
	"errors"
	"os"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestMain(m *testing.M) { os.Exit(testhost.Main(m)) }

const (
	header   = 12 // of a card that merges receive buffers
	offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
)

// unplugged is a tap as QEMU leaves it once its guest has set up its card.
func unplugged(t *testing.T) *os.File {
	t.Helper()
	testhost.Need(t)
	f, err := tap.Unplugged()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fd := int(f.Fd())
	if err := errors.Join(unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, header), unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)); err != nil {
		t.Fatal(err)
	}
	return f
}

// A program that had the descriptor all along is on the new tap, with what it had
// agreed on.
func TestReplug(t *testing.T) {
	f := unplugged(t)
	fd, err := unix.Dup(int(f.Fd())) // QEMU's
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	testhost.Tap(t, "real0")
	if err := tap.Replug(f, "real0"); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("real0")
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := tap.Read([]string{"real0"})
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, header+60)
	for i := range 6 {
		frame[header+i] = 0xff
	}
	if _, err := unix.Write(fd, frame); err != nil {
		t.Fatal(err)
	}
	after, err := tap.Read([]string{"real0"})
	if err != nil || after["real0"].Sent-before["real0"].Sent != 60 {
		t.Errorf("the tap has received %d bytes after %d, %v: want a frame of 60", after["real0"].Sent, before["real0"].Sent, err)
	}
	if n, err := unix.IoctlGetUint32(fd, unix.TUNGETVNETHDRSZ); err != nil || n != header {
		t.Errorf("header = %d, %v", n, err)
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	has, err := e.Features("real0")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation"} {
		if !has[want] {
			t.Errorf("the tap lacks %s", want)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "tuntap" && l.Attrs().Name != "real0" {
			t.Errorf("%s is left", l.Attrs().Name)
		}
	}
}

func TestReplugRefuses(t *testing.T) {
	f := unplugged(t)
	if err := tap.Replug(f, "none0"); !errors.Is(err, fault.Precondition) {
		t.Errorf("to a tap that is not there: %v", err)
	}
	testhost.Tap(t, "taken0")
	other, err := tap.Open("taken0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := tap.Replug(f, "taken0"); !errors.Is(err, fault.Locked) {
		t.Errorf("to a tap in use: %v", err)
	}
}

// A tap that is somebody's is not removed, whatever the descriptor is.
func TestReplugLeavesOnlyUnpluggedTaps(t *testing.T) {
	testhost.Need(t)
	testhost.Tap(t, "theirs0")
	testhost.Tap(t, "real1")
	f, err := tap.Open("theirs0")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tap.Replug(f, "real1"); !errors.Is(err, fault.Internal) {
		t.Errorf("from another's tap: %v, want internal", err)
	}
	if _, err := netlink.LinkByName("theirs0"); err != nil {
		t.Errorf("the tap it was on: %v", err)
	}
}
