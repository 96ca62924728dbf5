package world

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Tx is the world while its lock is held. What is put or deleted shows after
// the function that got the Tx returned nil.
type Tx struct {
	w      *World
	staged pending
}

// pending is a change on its way: once this file is there, the change will
// happen, if need be by the next process that takes the lock.
type pending struct {
	Effect *Effect                    `json:"effect"`
	Put    map[string]json.RawMessage `json:"put,omitempty"`
	Delete []string                   `json:"delete,omitempty"`
}

func (tx *Tx) get(name string, into any) (bool, error) { return tx.w.readJSON(name, into) }

func (tx *Tx) put(name string, v any) error {
	content, err := json.Marshal(v)
	if err != nil {
		return fault.New(fault.Internal, "encode %s: %w", name, err)
	}
	if tx.staged.Put == nil {
		tx.staged.Put = map[string]json.RawMessage{}
	}
	tx.staged.Put[name] = content
	return nil
}

func (tx *Tx) delete(name string) { tx.staged.Delete = append(tx.staged.Delete, name) }

// Record names the change. Without it nothing that was put or deleted counts.
func (tx *Tx) Record(e Effect) { tx.staged.Effect = &e }

// settle takes the lock and finishes a change that a kill cut short.
func (w *World) settle(ctx context.Context) (release func(), err error) {
	release, err = w.lock(ctx)
	if err != nil {
		return nil, err
	}
	var p pending
	found, err := w.readJSON(pendingFile, &p)
	if err == nil && found {
		err = w.apply(p)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// apply is idempotent: it may run again after a kill at any line.
func (w *World) apply(p pending) error {
	for name, content := range p.Put {
		if err := w.write(name, content); err != nil {
			return err
		}
	}
	for _, name := range p.Delete {
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New(fault.Unavailable, "write the world: %w", err)
		}
	}
	last, err := w.lastSeq()
	if err != nil {
		return err
	}
	if last < p.Effect.Seq {
		if err := w.appendEffect(*p.Effect); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(w.dir, pendingFile)); err != nil {
		return fault.New(fault.Unavailable, "write the world: %w", err)
	}
	return nil
}

// Change runs fn on the locked world and makes what it staged happen, as one
// effect. Faults for the effect are carried out here.
func (w *World) Change(ctx context.Context, fn func(*Tx) error) error {
	after, err := w.change(ctx, fn)
	if err != nil || after == nil {
		return err
	}
	// The lock is free again: a hang here must not stop the rest of the world.
	return w.carryOut(ctx, after)
}

func (w *World) change(ctx context.Context, fn func(*Tx) error) (after *Fault, err error) {
	release, err := w.settle(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { release() }()
	tx := &Tx{w: w}
	if err := fn(tx); err != nil {
		return nil, err
	}
	e := tx.staged.Effect
	if e == nil {
		return nil, nil
	}
	last, err := w.lastSeq()
	if err != nil {
		return nil, err
	}
	e.Seq, e.Time, e.PID = last+1, time.Now().UTC(), os.Getpid()
	before, err := w.take(Before, e.Op, e.Subject, e.Seq)
	if err != nil {
		return nil, err
	}
	if before != nil {
		release()
		release = func() {}
		return nil, w.carryOut(ctx, before)
	}
	if after, err = w.take(After, e.Op, e.Subject, e.Seq); err != nil {
		return nil, err
	}
	content, err := json.Marshal(tx.staged)
	if err != nil {
		return nil, fault.New(fault.Internal, "encode the change: %w", err)
	}
	if err := w.write(pendingFile, content); err != nil {
		return nil, err
	}
	return after, w.apply(tx.staged)
}
