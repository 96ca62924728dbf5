package driver_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/sdk/network"
)

// A sandbox holds no more connections than its limit, to the host and beyond
// together; another's are its own, and a closed one makes room.
func TestConnectionLimit(t *testing.T) {
	const limit = 16
	inWorld(t, driver.Config{MaxConnections: limit}, func(w *world) {
		w.applyHost()
		g, other := w.newGuest(16, network.ModeNAT), w.newGuest(17, network.ModeNAT)
		w.attach(g.req)
		w.attach(other.req)
		held := []net.Conn{}
		open := func(target string) bool {
			err := inGuest(g, func() error {
				c, err := net.DialTimeout("tcp4", target, 600*time.Millisecond)
				if err == nil {
					held = append(held, c)
				}
				return err
			})
			return err == nil
		}
		targets := []string{gateway + ":8844", internet + ":80"}
		for i := range limit {
			if !open(targets[i%2]) {
				t.Fatalf("connection %d of %d is refused", i+1, limit)
			}
		}
		for _, target := range targets {
			if open(target) {
				t.Errorf("one more than %d to %s", limit, target)
			}
		}
		w.expect("beside a sandbox at its limit", probe{from: other.ns, target: "tcp " + internet + ":80", want: true})
		if a := w.list("sbx_16"); len(a) != 1 || a[0].Drifted {
			t.Errorf("at the limit: %+v", a)
		}
		for _, c := range held {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset ends tracking at once
			}
			_ = c.Close()
		}
		w.expect("after closing", probe{from: g.ns, target: "tcp " + gateway + ":8844", want: true})
		if err := run("nft flush chain inet agentlab limit_sbx_16"); err != nil {
			t.Fatal(err)
		}
		if a := w.list("sbx_16"); len(a) != 1 || !a[0].Drifted {
			t.Errorf("without the limit's rule: %+v", a)
		}
		w.applyHost()
		if a := w.list("sbx_16"); len(a) != 1 || a[0].Drifted {
			t.Errorf("repaired: %+v", a)
		}
	})
}

// A flood of datagrams to ever new ports, which nobody answers and nobody
// closes, fills no more of the host's table than the limit.
func TestFloodFillsNoTable(t *testing.T) {
	const limit, flood = 50, 2000
	inWorld(t, driver.Config{MaxConnections: limit}, func(w *world) {
		w.applyHost()
		g := w.newGuest(16, network.ModeNAT)
		w.attach(g.req)
		w.expect("before", probe{from: g.ns, target: "tcp " + internet + ":80", want: true})
		err := inGuest(g, func() error {
			c, err := net.ListenPacket("udp4", ":0")
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			for i := range flood {
				to := &net.UDPAddr{IP: net.ParseIP(internet), Port: 1000 + i}
				if _, err := c.WriteTo([]byte("x"), to); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		text := strings.TrimSpace(output(t, "sysctl -n net.netfilter.nf_conntrack_count"))
		if n, err := strconv.Atoi(text); err != nil || n < limit/2 || n > limit+10 {
			t.Errorf("%s entries after %d flows, want about %d: %v", text, flood, limit, err)
		}
	})
}
