package driver_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

func tapRequest() network.AttachRequest {
	return network.AttachRequest{
		SandboxID: "sbx_tap", Generation: 3, Bridge: "vmbr1", Interface: "tap1042i0", CreateInterface: true,
		MAC: "52:54:00:00:10:42", Address: "10.77.4.18", Mode: network.ModeAllowlist,
		Allow: []network.Allow{
			{CIDR: "10.99.0.0/24", Protocol: "tcp", FirstPort: 443, LastPort: 443},
			{CIDR: "198.51.100.0/24", Protocol: "", FirstPort: 0, LastPort: 0},
		},
	}
}

// openTap opens a tap the way a hypervisor does, and waits until the bridge
// has noticed.
func openTap(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command("bridge", "link", "show", "dev", name).Output()
		if err == nil && strings.Contains(string(out), "state forwarding") {
			return fd, unix.SetNonblock(fd, true)
		}
	}
	_ = unix.Close(fd)
	return -1, fmt.Errorf("port %s does not forward", name)
}

func read(fd int, magic []byte) bool {
	buffer := make([]byte, 4096)
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		n, err := unix.Read(fd, buffer)
		if err != nil {
			time.Sleep(time.Millisecond)
		} else if bytes.Contains(buffer[:n], magic) {
			return true
		}
	}
	return false
}

// A tap that Attach made carries packets, belongs to root, and what is read
// back is what was asked for. Twice is the same as once; Detach leaves nothing.
func TestTap(t *testing.T) {
	inWorld(t, driver.Config{TailnetInterface: "tailscale0"}, func(w *world) {
		w.applyHost()
		clean := w.kernel()
		req := tapRequest()
		a := w.attach(req)
		if diff := cmp.Diff(network.Attachment{InForce: req, InterfaceMade: true}, a); diff != "" {
			t.Errorf("attachment (-want +got)\n%s", diff)
		}
		fd, err := openTap(req.Interface)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		bridge, err := net.InterfaceByName("vmbr1")
		if err != nil {
			t.Fatal(err)
		}
		ping := func(to string) bool {
			f := ethernet(bridge.HardwareAddr.String(), req.MAC, typeIPv4, echo(req.Address, to, "tap-magic"))
			// The host learns our MAC from the question.
			question := ethernet(broadcast, req.MAC, typeARP, arp(1, req.MAC, req.Address, gateway, ""))
			for _, one := range [][]byte{question, f} {
				if _, err := unix.Write(fd, one); err != nil {
					t.Error(err)
				}
			}
			return read(fd, []byte("tap-magic"))
		}
		// The bridge's own carrier follows its first port's some time later.
		answered := false
		for range 8 {
			answered = answered || ping(gateway)
		}
		if !answered {
			t.Error("no answer from the gateway through the tap")
		}
		if ping(hostWAN) {
			t.Error("an answer from the host's other address through the tap")
		}
		if text := output(t, "ip -details link show "+req.Interface); !strings.Contains(text, "user root") || !strings.Contains(text, "persist on") || !strings.Contains(text, "isolated on") {
			t.Errorf("the tap is not root's, persistent and isolated: %s", text)
		}
		index := linkIndex(t, req.Interface)
		if again := w.attach(req); again.Drifted || linkIndex(t, req.Interface) != index {
			t.Errorf("a second attach made another tap or drifted: %+v", again)
		}
		if again := w.list(req.SandboxID); len(again) != 1 || again[0].DeniedPackets == 0 {
			t.Errorf("denied packets are not counted: %+v", again)
		}
		w.leaves(req.SandboxID, clean)
	})
}

// leaves checks that Detach brings back what was there before.
func (w *world) leaves(id string, clean []string) {
	w.t.Helper()
	for range 2 { // gone is success
		if err := w.driver.Detach(w.t.Context(), id); err != nil {
			w.t.Errorf("detach: %v", err)
		}
	}
	if diff := cmp.Diff(clean, w.kernel()); diff != "" {
		w.t.Errorf("detach left something (-before +after)\n%s", diff)
	}
	if len(w.list("")) != 0 {
		w.t.Error("an attachment is still listed")
	}
}

// kernel is everything of the host's namespace that a sandbox could leave
// behind, without counters and indexes.
func (w *world) kernel() []string {
	return []string{
		output(w.t, "nft -s list ruleset"),
		stable(output(w.t, "ip -brief link show type tun")),
		stable(output(w.t, "ip -brief link show master vmbr1")),
		output(w.t, "bridge fdb show br vmbr1"),
	}
}

func (w *world) list(id string) []network.Attachment {
	w.t.Helper()
	a, err := w.driver.ListAttachments(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func output(t *testing.T, line string) string {
	t.Helper()
	f := strings.Fields(line)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

func linkIndex(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// What Attach refuses changes nothing at all.
func TestAttachRefuses(t *testing.T) {
	inWorld(t, driver.Config{WANInterface: "wan0", TailnetInterface: "tailscale0"}, func(w *world) {
		if _, err := w.driver.Attach(t.Context(), tapRequest()); fault.ClassOf(err) != fault.Precondition {
			t.Errorf("before the host set-up: %v", err)
		}
		w.applyHost()
		w.attach(tapRequest())
		if err := run("ip link add tap7i0 type bridge"); err == nil {
			defer func() { _ = run("ip link del tap7i0") }()
		}
		if err := run("ip tuntap add dev tap8i0 mode tap", "ip link add veth9 type veth peer name veth9p"); err != nil {
			t.Fatal(err)
		}
		before := w.kernel()
		tests := []struct {
			name   string
			change func(*network.AttachRequest)
			class  fault.Class
		}{
			{"older generation", func(r *network.AttachRequest) { r.SandboxID, r.Generation = "sbx_tap", 2 }, fault.Conflict},
			{"interface taken", func(r *network.AttachRequest) { r.Interface = "tap1042i0" }, fault.Exists},
			{"address taken", func(r *network.AttachRequest) { r.Address = "10.77.4.18" }, fault.Exists},
			{"MAC taken", func(r *network.AttachRequest) { r.MAC = "52:54:00:00:10:42" }, fault.Exists},
			{"a link that is no tap", func(r *network.AttachRequest) { r.Interface = "tap7i0" }, fault.Exists},
			{"somebody's tap", func(r *network.AttachRequest) { r.Interface = "tap8i0" }, fault.Exists},
			{"a link that is no port", func(r *network.AttachRequest) { r.Interface, r.CreateInterface = "veth9", false }, fault.Precondition},
			{"the way out", func(r *network.AttachRequest) { r.Interface, r.CreateInterface = "wan0", false }, fault.Invalid},
			{"the tailnet", func(r *network.AttachRequest) { r.Interface, r.CreateInterface = "tailscale0", false }, fault.Invalid},
			{"loopback", func(r *network.AttachRequest) { r.Interface, r.CreateInterface = "lo", false }, fault.Invalid},
			{"the bridge", func(r *network.AttachRequest) { r.Interface = "vmbr1" }, fault.Invalid},
			{"another bridge", func(r *network.AttachRequest) { r.Bridge = "vmbr0" }, fault.Invalid},
			{"the host's address in allow", func(r *network.AttachRequest) {
				r.Mode, r.Allow = network.ModeAllowlist, []network.Allow{{CIDR: "192.0.2.0/24", FirstPort: 22}}
			}, fault.Invalid},
			{"no mode", func(r *network.AttachRequest) { r.Mode = "" }, fault.Invalid},
		}
		for _, test := range tests {
			req := network.AttachRequest{
				SandboxID: "sbx_new", Generation: 9, Bridge: "vmbr1", Interface: "tap9i0", CreateInterface: true,
				MAC: "52:54:00:00:00:09", Address: "10.77.0.9", Mode: network.ModeNAT,
			}
			test.change(&req)
			if _, err := w.driver.Attach(t.Context(), req); fault.ClassOf(err) != test.class {
				t.Errorf("%s: %v is %s, want %s", test.name, err, fault.ClassOf(err), test.class)
			}
		}
		if diff := cmp.Diff(before, w.kernel()); diff != "" {
			t.Errorf("a refused call changed something (-before +after)\n%s", diff)
		}
	})
}

// A call that fails half way takes back what it did.
func TestAttachUndoes(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		before := w.kernel()
		req := tapRequest()
		req.Interface = "all" // a name that the kernel refuses, after the rules are in force
		if _, err := w.driver.Attach(t.Context(), req); err == nil {
			t.Error("attach with an impossible interface succeeds")
		}
		if diff := cmp.Diff(before, w.kernel()); diff != "" {
			t.Errorf("a failed attach left something (-before +after)\n%s", diff)
		}
	})
}

// Attach finishes what a killed predecessor left, at any point.
func TestAttachAfterCrash(t *testing.T) {
	req := tapRequest()
	stages := map[string][]string{
		"tap without mark":  {"ip link set tap1042i0 down", "ip link set tap1042i0 nomaster", "ip link set tap1042i0 alias "},
		"tap not in bridge": {"ip link set tap1042i0 nomaster"},
		"tap not isolated":  {"bridge link set dev tap1042i0 isolated off learning on flood on"},
		"tap down":          {"ip link set tap1042i0 down"},
		"no tap":            {"ip link del tap1042i0"},
		"no rules":          {"nft flush chain inet agentlab sandbox_sbx_tap"},
		"no binding":        {"nft flush set bridge agentlab bindings"},
		"a rule too many":   {"nft insert rule inet agentlab from_sandbox accept"},
		"another table":     {"nft delete table bridge agentlab"},
	}
	for name, damage := range stages {
		t.Run(name, func(t *testing.T) {
			inWorld(t, driver.Config{}, func(w *world) {
				w.applyHost()
				w.attach(req)
				for _, line := range damage {
					f := strings.Split(line, " ") // keeps the empty alias
					if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
						t.Fatalf("%s: %v: %s", line, err, out)
					}
				}
				if a := w.list(""); len(a) != 1 || !a[0].Drifted || a[0].Drift == "" {
					t.Errorf("drift is not reported: %+v", a)
				}
				// A driver that knows nothing, as after a restart.
				w.driver = driver.New(driver.Config{NFTBinary: "nft", HostUUID: "0b1e"}, nullLogger())
				if a := w.attach(req); a.Drifted || a.InterfaceMade != (name == "no tap") {
					t.Errorf("drift stays, or the answer is wrong about the tap: %+v", a)
				}
				if a := w.list(""); len(a) != 1 || a[0].Drifted {
					t.Errorf("drift stays: %+v", a)
				}
			})
		})
	}
}

// When all rules are gone the taps still tell that somebody's policy is not in
// force, and applying the host again shuts them.
func TestFlushedRuleset(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		w.attach(tapRequest())
		if err := run("nft flush ruleset"); err != nil {
			t.Fatal(err)
		}
		a := w.list("sbx_tap")
		if len(a) != 1 || !a[0].Drifted || a[0].InForce.Interface != "tap1042i0" {
			t.Errorf("a sandbox without rules is not reported: %+v", a)
		}
		w.applyHost()
		fd, err := openTap("tap1042i0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		f := ethernet(broadcast, "52:54:00:00:10:42", typeARP, arp(1, "52:54:00:00:10:42", "10.77.4.18", gateway, "shut?"))
		got, err := seen(w.host, "vmbr1", "shut?", func() error { _, err := unix.Write(fd, f); return err })
		if err != nil || got {
			t.Errorf("a sandbox without rules is heard: %v, %v", got, err)
		}
		w.attach(tapRequest())
		got, err = seen(w.host, "vmbr1", "shut?", func() error { _, err := unix.Write(fd, f); return err })
		if err != nil || !got {
			t.Errorf("an attached sandbox is not heard: %v, %v", got, err)
		}
		if err := w.driver.Detach(t.Context(), "sbx_tap"); err != nil {
			t.Error(err)
		}
	})
}
