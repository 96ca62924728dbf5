package memory

import (
	"context"
	"os"
	"slices"
	"sync"
)

// vaultSize is how many templates' memory is kept at hand. That of others is
// copied again when a VM starts from it.
const vaultSize = 4

// Vault keeps the sealed memory of templates from which VMs have started. VMs
// that share one copy share its pages. The zero value is ready.
type Vault struct {
	mu sync.Mutex // mu guards: held; and keeps two from copying the same
	// held has the one used last at its end.
	held []sealed
}

type sealed struct {
	key  string
	file *os.File
}

// Take gives the memory of the template, in a file that the caller closes.
func (v *Vault) Take(ctx context.Context, s *Store, key string) (*os.File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := slices.IndexFunc(v.held, func(h sealed) bool { return h.key == key })
	if at < 0 {
		f, err := Seal(ctx, s.Path(key, RAMName))
		if err != nil {
			return nil, err
		}
		if len(v.held) == vaultSize {
			v.drop(0)
		}
		v.held = append(v.held, sealed{key, f})
		return reopen(f)
	}
	h := v.held[at]
	v.held = append(slices.Delete(v.held, at, at+1), h)
	return reopen(h.file)
}

// Drop forgets a template's memory; VMs that run on it keep it.
func (v *Vault) Drop(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at := slices.IndexFunc(v.held, func(h sealed) bool { return h.key == key }); at >= 0 {
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

// drop is called with mu held.
func (v *Vault) drop(at int) {
	_ = v.held[at].file.Close()
	v.held = slices.Delete(v.held, at, at+1)
}
