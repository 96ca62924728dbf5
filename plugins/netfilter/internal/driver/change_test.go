package driver_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/netlab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

// line is an open connection to an echo server.
type line struct{ net.Conn }

func (g *guest) connect(address string) (line, error) {
	var c net.Conn
	err := netlab.In(g.ns, func() (err error) {
		c, err = net.DialTimeout("tcp4", address, 4*time.Second)
		return err
	})
	if err != nil {
		return line{}, err
	}
	_ = c.SetReadDeadline(time.Now().Add(4 * time.Second))
	_, err = c.Read(make([]byte, 1)) // the greeting
	return line{c}, err
}

// alive sends a byte and waits for it to come back.
func (l line) alive(timeout time.Duration) bool {
	_ = l.SetDeadline(time.Now().Add(timeout))
	if _, err := l.Write([]byte("y")); err != nil {
		return false
	}
	_, err := l.Read(make([]byte, 1))
	return err == nil
}

// A running sandbox's policy is changed: what it now denies ends at once, also
// for connections that are open, and what it still permits goes on.
func TestPolicyChange(t *testing.T) {
	inWorld(t, driver.Config{TailnetInterface: "tailscale0"}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		w.attach(g.req)
		var lines []line
		for _, to := range []string{internet + ":443", internet + ":80", gateway + ":8844"} {
			l, err := g.connect(to)
			if err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			defer func() { _ = l.Close() }()
			lines = append(lines, l)
		}
		check := func(when string, want ...bool) {
			t.Helper()
			for i, l := range lines {
				timeout := 4 * time.Second
				if !want[i] {
					timeout = 800 * time.Millisecond
				}
				if got := l.alive(timeout); got != want[i] {
					t.Errorf("%s: %s: alive %v, want %v", when, l.RemoteAddr(), got, want[i])
				}
			}
		}
		check("nat", true, true, true)
		g.req.Generation++
		g.req.Mode, g.req.Allow = network.ModeAllowlist, []network.Allow{{CIDR: internet + "/32", Protocol: "tcp", FirstPort: 443}}
		w.attach(g.req)
		flows := output(t, "conntrack -L -s "+g.req.Address)
		if strings.Contains(flows, "dport=80 ") || !strings.Contains(flows, "dport=443 ") {
			t.Errorf("flows after the change:\n%s", flows)
		}
		check("allowlist", true, false, true)
		g.req.Generation++
		g.req.Mode, g.req.Allow = network.ModeOff, nil
		w.attach(g.req)
		check("off", false, false, true)
		old := g.req
		old.Generation, old.Mode = 1, network.ModeNAT
		if _, err := w.driver.Attach(t.Context(), old); fault.ClassOf(err) != fault.Conflict {
			t.Errorf("an older generation: %v", err)
		}
		w.expect("off", probe{from: g.ns, target: "tcp " + internet + ":80"})
		g.req.Generation, g.req.Mode = 9, network.ModeNAT
		w.attach(g.req)
		w.expect("nat again", probe{from: g.ns, target: "tcp " + internet + ":80", want: true})
	})
}

// An address that gets a new holder has no connection of the old one's left.
func TestDetachCutsFlows(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		w.attach(g.req)
		l, err := g.connect(internet + ":443")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if flows := output(t, "conntrack -L -s "+g.req.Address); !strings.Contains(flows, "dport=443 ") {
			t.Errorf("the connection is not tracked:\n%s", flows)
		}
		if err := w.driver.Detach(t.Context(), g.req.SandboxID); err != nil {
			t.Error(err)
		}
		if flows := output(t, "conntrack -L -s "+g.req.Address); strings.Contains(flows, "dport=443 ") {
			t.Errorf("the connection is still tracked:\n%s", flows)
		}
	})
}

// The guest ports change under attached sandboxes: the new one opens, the old
// one shuts, open connections to it end, and everything else goes on.
func TestGuestPortsChange(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		w.attach(g.req)
		w.attach(tapRequest())
		before := w.list("")
		api, err := g.connect(gateway + ":8844")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = api.Close() }()
		web, err := g.connect(internet + ":443")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = web.Close() }()
		wish := hostWish
		wish.GuestTCPPorts = []uint16{8006}
		if _, err := w.driver.ApplyHost(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		flows := output(t, "conntrack -L -s "+g.req.Address)
		if strings.Contains(flows, "dport=8844 ") || !strings.Contains(flows, "dport=443 ") {
			t.Errorf("flows after the change:\n%s", flows)
		}
		w.expect("new ports",
			probe{from: g.ns, target: "tcp " + gateway + ":8844"}, probe{from: g.ns, target: "tcp " + gateway + ":8006", want: true},
			probe{from: g.ns, target: "tcp " + internet + ":80", want: true})
		if api.alive(800 * time.Millisecond) {
			t.Error("a connection to a port that is no longer open goes on")
		}
		if !web.alive(4 * time.Second) {
			t.Error("a connection that has nothing to do with the change ended")
		}
		after := w.list("")
		for i := range after {
			after[i].DeniedPackets = before[i].DeniedPackets
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("attachments (-before +after)\n%s", diff)
		}
	})
}

// Many calls at once end as if they had come one after the other.
func TestParallel(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		const n = 12
		errs := make([]error, n)
		var all sync.WaitGroup
		for i := range n {
			req := tapRequest()
			req.SandboxID, req.Interface = "sbx_"+string(rune('a'+i)), "tap"+string(rune('a'+i))+"i0"
			req.MAC, req.Address = "52:54:00:00:01:0"+string("0123456789ab"[i]), "10.77.9."+[]string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}[i]
			all.Go(func() {
				errs[i] = netlab.In(w.host, func() error {
					_, err := w.driver.Attach(context.Background(), req)
					if err == nil && i%3 == 0 {
						err = w.driver.Detach(context.Background(), req.SandboxID)
					}
					return err
				})
			})
		}
		all.Wait()
		for i, err := range errs {
			if err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
		a := w.list("")
		if len(a) != n-n/3 {
			t.Errorf("%d attachments, want %d", len(a), n-n/3)
		}
		for _, one := range a {
			if one.Drifted {
				t.Errorf("%s: %s", one.InForce.SandboxID, one.Drift)
			}
		}
	})
}

// A call whose time is up while another one runs gives up.
func TestDeadline(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		if _, err := w.driver.Attach(ctx, tapRequest()); fault.ClassOf(err) != fault.Timeout {
			t.Errorf("error %v of class %s", err, fault.ClassOf(err))
		}
		if a := w.list(""); len(a) != 0 {
			t.Errorf("attached: %+v", a)
		}
	})
}
