package assume

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

func TestAddEntropy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := addEntropy(layout.Layout{Root: "/"}, bytes.Repeat([]byte{1}, 64)); err != nil {
		t.Error(err)
	}
	l := layout.Layout{Root: t.TempDir()}
	put(t, l.At(randomDevice), "")
	if err := addEntropy(l, []byte{1}); err == nil {
		t.Error("a file was taken for the random pool")
	}
}

// newNIC gives the guest a network card: a link in a network namespace, in
// which its function calls another.
func newNIC(t *testing.T, g *copied) func(func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces")
	}
	ready, calls, results := make(chan error, 1), make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		ns, err := netns.New()
		if err == nil {
			defer ns.Close()
			link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: []byte{2, 0, 0, 0, 0, 9}}}
			err = netlink.LinkAdd(link)
			dir := g.At("/sys/class/net/eth0")
			put(t, dir+"/device/x", "")
			put(t, dir+"/address", "02:00:00:00:00:09\n")
			put(t, dir+"/ifindex", strconv.Itoa(link.Attrs().Index)+"\n")
		}
		ready <- err
		for f := range calls {
			results <- f()
		}
	}()
	if err := <-ready; err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	t.Cleanup(func() { close(calls) })
	return func(f func() error) error { calls <- f; return <-results }
}
