package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// The folders of objects, one JSON file each.
const (
	vms         = "vms"
	attachments = "attachments"
	exposures   = "exposures"
	guests      = "guests"
	volumes     = "volumes"
	Bundles     = "bundles" // <name>.yaml or <name>.json, bundle format version 1
)

const (
	lockFile    = "lock"
	pendingFile = "pending.json"
	effectsFile = "effects.log"
	faultsFile  = "faults.json"
)

// World is one process's view of the directory.
type World struct {
	dir  string
	act  func(Fault) error
	turn chan struct{} // one at a time of this process waits for the lock
}

// Open opens the world in dir and makes what is missing. act carries out faults
// that concern the whole process; nil makes such a fault an error, as a test that
// runs in process wants it.
func Open(dir string, act func(Fault) error) (*World, error) {
	for _, sub := range []string{vms, attachments, exposures, guests, volumes, Bundles} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fault.New(fault.Invalid, "make the world's directory: %w", err)
		}
	}
	if act == nil {
		act = func(f Fault) error { return fault.New(fault.Internal, "nothing here can carry out %q", f.Do) }
	}
	return &World{dir: dir, act: act, turn: make(chan struct{}, 1)}, nil
}

// Dir is where the world is kept.
func (w *World) Dir() string { return w.dir }

// lock waits for the world's lock; release gives it back. A killed holder's
// lock is freed by the kernel.
func (w *World) lock(ctx context.Context) (release func(), err error) {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the world's lock: %w", ctx.Err())
	}
	f, err := os.OpenFile(filepath.Join(w.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		<-w.turn
		return nil, fault.New(fault.Unavailable, "open the world's lock: %w", err)
	}
	free := func() { // not the result, which a return overwrites
		_ = f.Close()
		<-w.turn
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return free, nil
	}
	// Waiting in the kernel is fair; trying again and again starves.
	got := make(chan error, 1)
	go func() { got <- flock(f) }()
	select {
	case err := <-got:
		if err != nil {
			free()
			return nil, fault.New(fault.Unavailable, "lock the world: %w", err)
		}
		return free, nil
	case <-ctx.Done():
		go func() { // ends when the present holder lets go
			<-got
			free()
		}()
		return nil, fmt.Errorf("wait for the world's lock: %w", ctx.Err())
	}
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// readJSON reports whether the file is there.
func (w *World) readJSON(name string, into any) (bool, error) {
	content, err := os.ReadFile(filepath.Join(w.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fault.New(fault.Unavailable, "read the world: %w", err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		return false, fault.New(fault.Internal, "%s in the world cannot be read: %w", name, err)
	}
	return true, nil
}

// write replaces a file whole.
func (w *World) write(name string, content []byte) error {
	path := filepath.Join(w.dir, name)
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return fault.New(fault.Unavailable, "write the world: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fault.New(fault.Unavailable, "write the world: %w", err)
	}
	return nil
}

// names lists the objects of a folder, sorted, without extension.
func (w *World) names(folder string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(w.dir, folder))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read the world: %w", err)
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			out = append(out, name)
		}
	}
	return out, nil
}
