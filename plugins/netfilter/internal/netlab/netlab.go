package netlab

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

// Run calls f on a thread in a new, empty network namespace. The thread ends
// with f. Goroutines that f starts are elsewhere: give them In.
func Run(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not be reused
		ns, err := netns.New()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = ns.Close() }()
		defer close(done) // also when f ends by t.FailNow
		f()
	}()
	if err := <-done; err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
}

// New makes a further namespace and stays in the caller's.
func New(t *testing.T) netns.NsHandle {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
	return ns
}

// In calls f on a thread of its own in ns and waits for it.
func In(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
