package cardtest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// New gives the guest the card eth0 with the address 02:00:00:00:00:09, and a function
// that calls another where the card is. It skips the test where that cannot be made.
func New(t *testing.T, l layout.Layout) (in func(func() error) error) {
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
			Put(t, l.At("/sys/class/net/eth0/device/x"), "")
			Put(t, l.At("/sys/class/net/eth0/address"), "02:00:00:00:00:09\n")
			Put(t, l.At("/sys/class/net/eth0/ifindex"), strconv.Itoa(link.Attrs().Index)+"\n")
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

// Put writes a file and the directories that it is in.
func Put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Error(err)
	}
}
