package testkit

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// onEnd is what is still to be done when the test binary ends. A signal ends it
// without the clean-ups of its tests, and what has a session or a namespace of
// its own, such as a guest, would stay.
var onEnd struct {
	listen sync.Once

	mu sync.Mutex
	// mu guards:
	todo []*func()
}

// OnEnd is t.Cleanup that also runs when somebody interrupts the test.
func OnEnd(t testing.TB, f func()) {
	t.Helper()
	onEnd.listen.Do(func() {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		go endOn(signals)
	})
	onEnd.mu.Lock()
	onEnd.todo = append(onEnd.todo, &f)
	onEnd.mu.Unlock()
	t.Cleanup(func() {
		onEnd.mu.Lock()
		onEnd.todo = slices.DeleteFunc(onEnd.todo, func(other *func()) bool { return other == &f })
		onEnd.mu.Unlock()
		f()
	})
}

func endOn(signals <-chan os.Signal) {
	<-signals
	onEnd.mu.Lock() // for good: no test ends by itself any more
	for _, f := range slices.Backward(onEnd.todo) {
		done := make(chan struct{})
		go func() { // it may end its goroutine, as t.Fatal does
			defer close(done)
			(*f)()
		}()
		<-done
	}
	os.Exit(130)
}
