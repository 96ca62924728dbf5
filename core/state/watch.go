package state

import "sync"

// watchers wakes those who wait for changes. A wake carries nothing: who is
// woken reads the rows.
type watchers struct {
	mu   sync.Mutex
	next int
	// mu guards:
	all map[int]watcher
}

type watcher struct {
	sandbox string // "" is any
	wake    chan struct{}
}

// Watch gives a channel that receives after each commit that wrote an event.
// Wakes that nobody took yet are folded into one. stop ends it; the channel is
// never closed. Commits of other processes do not wake.
func (s *Store) Watch() (wake <-chan struct{}, stop func()) { return s.watchers.add("") }

// WatchSandbox is Watch for what concerns one sandbox and its job.
func (s *Store) WatchSandbox(id string) (wake <-chan struct{}, stop func()) {
	return s.watchers.add(id)
}

func (w *watchers) add(sandbox string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[int]watcher{}
	}
	id := w.next
	w.next++
	w.all[id] = watcher{sandbox, ch}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, id)
	}
}

func (w *watchers) wake(touched map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, each := range w.all {
		if each.sandbox != "" && !touched[each.sandbox] {
			continue
		}
		select {
		case each.wake <- struct{}{}:
		default:
		}
	}
}
