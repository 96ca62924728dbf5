package memory

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// maxIdle is how many templates' memory is kept at hand on which no VM runs. That of
// others is copied again when a VM starts from it.
const maxIdle = 4

// Vault keeps the sealed memory of templates from which VMs have started. VMs
// that share one copy share its pages. The zero value is ready.
type Vault struct {
	// Memory tells of the host's, in bytes; nil where that is no matter.
	Memory func() (total, available uint64, err error)

	mu sync.Mutex // mu guards: held, and file in each
	// held has the one used last at its end.
	held []*sealed
}

// sealed is a copy, or is to become one.
type sealed struct {
	key  string
	done chan struct{} // closed when it is made or has failed
	file *os.File      // nil before that, and when it was let go
	err  error         // is read after done only
}

// Take gives the memory of the template, in a file that the caller closes. Of those
// who want the same at a time one copies it.
func (v *Vault) Take(ctx context.Context, s *Store, key string) (*os.File, error) {
	for {
		h, mine := v.reserve(key)
		if mine {
			return v.fill(ctx, s, h)
		}
		select {
		case <-h.done:
		case <-ctx.Done():
			return nil, fault.New(fault.Timeout, "wait for a copy of guest memory: %w", ctx.Err())
		}
		// Whoever copied may have been called off.
		if h.err != nil && !errors.Is(h.err, fault.Timeout) {
			return nil, h.err
		}
		if f, err := v.use(h); f != nil || err != nil {
			return f, err
		}
	}
}

// reserve gives what is there for the key, or a new one for the caller to fill.
func (v *Vault) reserve(key string) (h *sealed, mine bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at := v.find(key); at >= 0 {
		return v.held[at], false
	}
	h = &sealed{key: key, done: make(chan struct{})}
	v.held = append(v.held, h)
	return h, true
}

func (v *Vault) fill(ctx context.Context, s *Store, h *sealed) (*os.File, error) {
	path := s.Path(h.key, RAMName)
	err := v.room(path)
	var file *os.File
	if err == nil {
		file, err = Seal(ctx, path)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	defer close(h.done)
	var out *os.File
	if err == nil {
		out, err = reopen(file)
	}
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		h.err = err
		v.held = slices.DeleteFunc(v.held, func(other *sealed) bool { return other == h })
		return nil, err
	}
	if !slices.Contains(v.held, h) { // dropped meanwhile
		return out, file.Close()
	}
	h.file = file
	v.trim()
	return out, nil
}

// room refuses a copy that would drive the host out of memory: a VM that boots
// takes what it needs bit by bit.
func (v *Vault) room(path string) error {
	if v.Memory == nil {
		return nil
	}
	_, available, err := v.Memory()
	if err != nil {
		return fault.New(fault.Unavailable, "look at the host's memory: %w", err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return fault.New(fault.Precondition, "look at guest memory: %w", err)
	}
	if need := uint64(st.Blocks) * 512; need > available {
		return fault.New(fault.Exhausted, "a copy of guest memory may take %d MiB, and %d MiB are available", need>>20, available>>20).
			WithHint("stop VMs, or give the host more memory")
	}
	return nil
}

// use gives nil for a copy that was let go.
func (v *Vault) use(h *sealed) (*os.File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h.file == nil {
		return nil, nil
	}
	if at := slices.Index(v.held, h); at >= 0 {
		v.held = append(slices.Delete(v.held, at, at+1), h)
	}
	return reopen(h.file)
}

// Trim lets go of what no VM has run on for longest, but for a few.
func (v *Vault) Trim() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trim()
}

// Drop forgets a template's memory; VMs that run on it keep it.
func (v *Vault) Drop(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at := v.find(key); at >= 0 {
		v.drop(at)
	}
}

// Close forgets them all.
func (v *Vault) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for len(v.held) > 0 {
		v.drop(0)
	}
}

// find, trim and drop are called with mu held.
func (v *Vault) find(key string) int {
	return slices.IndexFunc(v.held, func(h *sealed) bool { return h.key == key })
}

func (v *Vault) trim() {
	idle := 0
	for at := len(v.held) - 1; at >= 0; at-- {
		if h := v.held[at]; h.file == nil || inUse(h.file) {
			continue
		}
		if idle++; idle > maxIdle {
			v.drop(at)
		}
	}
}

func (v *Vault) drop(at int) {
	h := v.held[at]
	if h.file != nil {
		_ = h.file.Close()
		h.file = nil
	}
	v.held = slices.Delete(v.held, at, at+1)
}

// inUse reports whether a QEMU has the file, which is to say open for writing: the
// kernel grants no lease on one for reading then. The lease itself is of no use here.
func inUse(f *os.File) bool {
	fd := f.Fd()
	_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}
