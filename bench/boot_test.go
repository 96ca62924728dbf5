package bench_test

import (
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
)

// BenchmarkSandboxReady takes a sandbox on real QEMU apart: from the request to
// QEMU's own start, from there to the guest's hello, which is what the guest
// needs whoever starts it, and from the hello to READY at the client. What is
// not the guest is ours. Every start is a boot.
func BenchmarkSandboxReady(b *testing.B) {
	l := newLabDaemon(b)
	l.withoutMemory(b)
	c := l.c
	var whole, ours, guest, perhand samples
	for range count(b, "AGENTLAB_BENCH_BOOTS", 3) {
		began := time.Now()
		a, err := c.CreateSandbox(b.Context(), api.SandboxCreate{Profile: "small"})
		if err != nil {
			b.Fatal(err)
		}
		hello, ready := awaitReady(b, c, a.Sandbox.ID)
		pid := l.qemuOf(b, a.Sandbox.ID)
		inGuest := hello.Sub(startOf(b, pid))
		whole = append(whole, ready.Sub(began))
		guest = append(guest, inGuest)
		ours = append(ours, ready.Sub(began)-inGuest)
		perhand = append(perhand, byHand(b, pid))
		if _, err := c.DestroySandbox(b.Context(), a.Sandbox.ID); err != nil {
			b.Fatal(err)
		}
	}
	hide(b)
	whole.report(b, "ready")
	guest.report(b, "guest")
	ours.report(b, "ours")
	perhand.report(b, "qemu-by-hand")
}

// awaitReady gives the times of the guest's hello, by the daemon's clock, and of
// READY here.
func awaitReady(b *testing.B, c *client.Client, id string) (hello, ready time.Time) {
	b.Helper()
	var oldest int64
	for e, err := range c.Events(b.Context(), client.EventQuery{After: &oldest, SandboxID: id}) {
		switch {
		case err != nil:
			b.Fatal(err)
		case e.Type == lab.EventGuestHello:
			hello = e.At
		case e.Type == lab.EventSandboxChanged && e.Fields["to"] == string(lab.SandboxReady):
			return hello, time.Now()
		case e.Type == lab.EventSandboxChanged && e.Fields["to"] == string(lab.SandboxFailed):
			b.Fatalf("the sandbox failed: %s", e.Message)
		}
	}
	b.Fatal("the events ended")
	return hello, ready
}
