package driver_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netns"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/netlab"
)

// timeout is how long a probe waits. A reachable peer answers in microseconds,
// but ARP that was refused a moment ago is asked again only each second.
func (p probe) timeout() time.Duration {
	if p.want {
		return 4 * time.Second
	}
	return 800 * time.Millisecond
}

// probe is one connection attempt: "tcp ADDRESS:PORT" or "ping ADDRESS".
type probe struct {
	from   netns.NsHandle
	target string
	want   bool
}

func (p probe) works() bool {
	kind, where, _ := strings.Cut(p.target, " ")
	err := netlab.In(p.from, func() error {
		switch kind {
		case "tcp":
			return dial(where, p.timeout())
		case "ping":
			return run(fmt.Sprintf("ping -c 1 -W %.1f -n -q %s", p.timeout().Seconds(), where))
		}
		return fmt.Errorf("no probe %q", kind)
	})
	return err == nil
}

// dial succeeds when a byte comes back: a handshake alone would pass for a
// listener behind a broken return path.
func dial(address string, timeout time.Duration) error {
	c, err := net.DialTimeout("tcp4", address, timeout)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// expect runs all probes at the same time and reports those that did not come
// out as wanted.
func (w *world) expect(when string, probes ...probe) {
	w.t.Helper()
	got := make([]bool, len(probes))
	var all sync.WaitGroup
	for i, p := range probes {
		all.Go(func() { got[i] = p.works() })
	}
	all.Wait()
	for i, p := range probes {
		if got[i] != p.want {
			w.t.Errorf("%s: %s: reached %v, want %v", when, p.target, got[i], p.want)
		}
	}
}

// expectOpen is the control: the same probes, none of them stopped.
func (w *world) expectOpen(probes ...probe) {
	w.t.Helper()
	for i := range probes {
		probes[i].want = true
	}
	w.expect("with everything open", probes...)
}
