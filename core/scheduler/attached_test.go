package scheduler

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/network"
)

// Every part of a policy counts; how the plugin orders destinations does not.
func TestDiffersComparesTheWholeRequest(t *testing.T) {
	web := network.Allow{CIDR: "192.0.2.7/32", Protocol: "tcp", FirstPort: 443, LastPort: 443}
	dns := network.Allow{CIDR: "192.0.2.8/32", Protocol: "udp", FirstPort: 53, LastPort: 53}
	metadata := network.Allow{CIDR: "169.254.169.254/32"}
	asked := network.AttachRequest{
		RequestID: "op_1", SandboxID: "sbx_1", Generation: 2, Bridge: "vmbr1", Interface: "tap1000i0", CreateInterface: true,
		MAC: "52:54:00:00:10:00", Address: "10.77.3.232", Mode: network.ModeAllowlist, Allow: []network.Allow{web, dns, web},
	}
	for _, tt := range []struct {
		name   string
		change func(*network.Attachment)
		same   bool
	}{
		{"nothing", func(*network.Attachment) {}, true},
		{"the order", func(a *network.Attachment) { a.InForce.Allow = []network.Allow{dns, web} }, true},
		{"the request's id", func(a *network.Attachment) { a.InForce.RequestID = "" }, true},
		{"the mode", func(a *network.Attachment) { a.InForce.Mode = network.ModeNAT }, false},
		{"the address", func(a *network.Attachment) { a.InForce.Address = "10.77.3.233" }, false},
		{"the MAC", func(a *network.Attachment) { a.InForce.MAC = "52:54:00:00:10:01" }, false},
		{"the interface", func(a *network.Attachment) { a.InForce.Interface = "tap1001i0" }, false},
		{"who makes the interface", func(a *network.Attachment) { a.InForce.CreateInterface = false }, false},
		{"the bridge", func(a *network.Attachment) { a.InForce.Bridge = "vmbr0" }, false},
		{"the generation", func(a *network.Attachment) { a.InForce.Generation = 1 }, false},
		{"a destination more", func(a *network.Attachment) { a.InForce.Allow = append(a.InForce.Allow, metadata) }, false},
		{"a destination less", func(a *network.Attachment) { a.InForce.Allow = []network.Allow{web} }, false},
		{"drift", func(a *network.Attachment) { a.Drifted, a.Drift = true, "interface tap1000i0 is down" }, false},
	} {
		got := network.Attachment{InForce: asked}
		got.InForce.Allow = slices.Clone(asked.Allow)
		tt.change(&got)
		if what := differs(got, asked); (what == "") != tt.same {
			t.Errorf("%s: %q", tt.name, what)
		}
	}
}

// A VM does not come back to a link that was made anew: who reads the event
// must know.
func TestLinkMadeAnewIsTold(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		sb := b.submitSandbox("box")
		b.settle()
		b.world.mu.Lock()
		b.world.linkless = true
		delete(b.world.nets, sb.ID)
		b.world.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		told := b.events(lab.EventPolicyRestored)
		if len(told) != 1 || !strings.Contains(told[0].Message, "stopped and started") {
			t.Errorf("events: %+v", told)
		}
	})
}
