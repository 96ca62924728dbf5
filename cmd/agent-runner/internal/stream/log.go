package stream

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/agentlab/agentlab/sdk/secret"
)

// Log is a job's log on disk. Write is safe for concurrent use.
type Log struct {
	max      int64
	file     *os.File
	wake     chan struct{} // capacity 1: something was written or the log ended
	exceeded chan struct{} // closed when the quota is used up

	mu sync.Mutex
	// mu guards:
	redacted *secret.Stream
	size     int64
	full     bool
	ended    bool
	err      error // first failure to write
}

// Open opens or goes on with the log at path. max is its quota in bytes, 0 for
// none.
func Open(path string, max int64, r *secret.Redactor) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &Log{
		max: max, file: f, redacted: r.Stream(), size: st.Size(),
		wake: make(chan struct{}, 1), exceeded: make(chan struct{}),
	}, nil
}

// Write takes output of the agent. It never fails and never blocks on the
// network: what is beyond the quota is dropped.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.append(l.redacted.Next(p))
	}
	return len(p), nil
}

// append is called with mu held.
func (l *Log) append(b []byte) {
	if l.full || len(b) == 0 {
		return
	}
	if l.max > 0 && l.size+int64(len(b)) > l.max {
		b = b[:max(l.max-l.size, 0)]
		l.setFull()
	}
	n, err := l.file.WriteAt(b, l.size)
	l.size += int64(n)
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("write log: %w", err)
	}
	l.signal()
}

// setFull is called with mu held.
func (l *Log) setFull() {
	if !l.full {
		l.full = true
		close(l.exceeded)
	}
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Exceeded is closed once the quota is used up.
func (l *Log) Exceeded() <-chan struct{} { return l.exceeded }

// Max is the quota in bytes, 0 for none.
func (l *Log) Max() int64 { return l.max }

// End writes what was held back. Later writes are dropped. It returns the
// first failure to write to disk.
func (l *Log) End() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.append(l.redacted.End())
		l.ended = true
		l.signal()
	}
	return l.err
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }

// read copies what is at offset. done: the log ended and nothing is left.
func (l *Log) read(offset int64, b []byte) (n int, done bool, err error) {
	l.mu.Lock()
	size, ended := l.size, l.ended
	l.mu.Unlock()
	if offset >= size {
		return 0, ended, nil
	}
	n, err = l.file.ReadAt(b[:min(int64(len(b)), size-offset)], offset)
	if err != nil {
		return n, false, fmt.Errorf("read log: %w", err)
	}
	return n, false, nil
}

// skipTo makes the log at least size bytes long: the host has more than the
// disk kept, because power failed before the last pieces were on disk.
func (l *Log) skipTo(size int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if size <= l.size {
		return nil
	}
	if l.max > 0 && size > l.max {
		return errors.New("go on with log: the host claims to have more than the quota")
	}
	if err := l.file.Truncate(size); err != nil {
		return fmt.Errorf("go on with log: %w", err)
	}
	l.size = size
	return nil
}
