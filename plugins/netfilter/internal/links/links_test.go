package links

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/netlab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// A listing that was interrupted is asked for again, but not for ever.
func TestWhole(t *testing.T) {
	for _, tt := range []struct {
		interrupted int
		class       fault.Class
	}{{0, ""}, {dumps - 1, ""}, {1000, fault.Conflict}} {
		calls := 0
		got, err := whole(func() (int, error) {
			if calls++; calls <= tt.interrupted {
				return 0, netlink.ErrDumpInterrupted
			}
			return 7, nil
		})
		if err := classify(err, "list"); fault.ClassOf(err) != tt.class || (err == nil) != (got == 7) || calls > dumps {
			t.Errorf("interrupted %d times: %d after %d calls, %v", tt.interrupted, got, calls, err)
		}
	}
	other := errors.New("broken")
	calls := 0
	if _, err := whole(func() (int, error) { calls++; return 0, other }); !errors.Is(err, other) || calls != 1 {
		t.Errorf("another error: %v after %d calls", err, calls)
	}
}

// While links come and go, a listing is whole or refused as a conflict.
func TestListAmongComingsAndGoings(t *testing.T) {
	netlab.Run(t, func() {
		const stay, rounds = 100, 300
		for i := range stay {
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("stay%d", i)}}); err != nil {
				t.Error(err)
				return
			}
		}
		here, err := netns.Get()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = here.Close() }()
		ctx, cancel := context.WithCancel(t.Context())
		var churn sync.WaitGroup
		defer churn.Wait()
		defer cancel()
		churn.Go(func() {
			err := netlab.In(here, func() error {
				for ctx.Err() == nil {
					link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "comes"}}
					if err := errors.Join(netlink.LinkAdd(link), netlink.LinkDel(link)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		h, err := Open(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		good := 0
		for range rounds {
			all, err := h.List()
			switch {
			case err == nil && len(all) < stay:
				t.Errorf("%d links, want %d and more", len(all), stay)
			case err == nil:
				good++
			case fault.ClassOf(err) != fault.Conflict:
				t.Errorf("%v is %s", err, fault.ClassOf(err))
			}
		}
		if good < rounds*99/100 {
			t.Errorf("%d of %d listings were whole", good, rounds)
		}
	})
}

// Every request goes over the handle's sockets, which have its time limits.
func TestRequestsUseTheHandle(t *testing.T) {
	netlab.Run(t, func() {
		h, err := Open(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := h.portFlags(); err != nil {
			t.Errorf("before Close: %v", err)
		}
		h.Close()
		if _, err := h.portFlags(); err == nil {
			t.Error("a closed handle still answers")
		}
	})
}

// A link that went away under a change is a conflict, which callers try again;
// only for who wants it gone it is not there.
func TestLinkThatWentAway(t *testing.T) {
	netlab.Run(t, func() {
		h, err := Open(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		defer h.Close()
		if err := errors.Join(MakeTap("tap1i0"), h.MakeBridge("vmbr1")); err != nil {
			t.Error(err)
			return
		}
		all, err := h.List()
		if err != nil {
			t.Error(err)
			return
		}
		tap := all["tap1i0"]
		if err := h.Remove(tap); err != nil {
			t.Error(err)
		}
		for what, c := range map[string]struct {
			err   error
			class fault.Class
		}{
			"raise":  {h.Raise(tap), fault.Conflict},
			"join":   {h.Join(tap, all["vmbr1"], "52:54:00:00:00:01"), fault.Conflict},
			"mark":   {h.Mark(tap, "agentlab:x/y"), fault.Conflict},
			"remove": {h.Remove(tap), fault.NotFound},
		} {
			if fault.ClassOf(c.err) != c.class {
				t.Errorf("%s: %v is %s, want %s", what, c.err, fault.ClassOf(c.err), c.class)
			}
		}
	})
}
