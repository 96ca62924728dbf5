package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	_ "github.com/mattn/go-sqlite3" // driver "sqlite3"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Settings sit in the DSN, so that every connection of a pool has them.
const (
	writerOptions = "_journal_mode=WAL&_synchronous=FULL&_foreign_keys=on&_busy_timeout=5000&_txlock=immediate&_stmt_cache_size=64"
	readerOptions = "mode=ro&_query_only=on&_busy_timeout=5000&_stmt_cache_size=64"

	readers = 4
	// callTimeout bounds a call whose context has no deadline of its own.
	callTimeout = 30 * time.Second
)

// Store is the open database. It is safe for concurrent use, also by several
// processes on one file.
type Store struct {
	path     string
	writer   *sql.DB // one connection: with two, a busy wait ignores the context
	reader   *sql.DB
	watchers watchers
	failed   atomic.Int64 // see WriteFailed
}

// Open opens or makes the database file and brings its schema up to date; an
// older one is first copied to "<path>.v<version>.backup". A file that is no
// database is fault.Internal, one from a newer program fault.Precondition.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := touch(path); err != nil {
		return nil, fault.New(fault.Internal, "open database %s: %w", path, err).
			WithHint("the directory must exist and be writable by the daemon")
	}
	s := &Store{path: path}
	var err error
	if s.writer, err = pool(path, writerOptions, 1); err != nil {
		return nil, err
	}
	if s.reader, err = pool(path, readerOptions, readers); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // a backup of a large file takes its time
	defer cancel()
	if err := s.migrate(ctx, migrations()); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), s.Close())
	}
	return s, nil
}

// touch makes the file unreadable for others before SQLite first writes to it;
// the -wal and -shm files take its mode.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func pool(path, options string, connections int) (*sql.DB, error) {
	name := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + options
	db, err := sql.Open("sqlite3", name)
	if err != nil {
		return nil, fault.New(fault.Internal, "open database %s: %w", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// Close ends all connections. Calls that run are waited for.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.reader, s.writer} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Size gives the bytes that the database and its write-ahead log take.
func (s *Store) Size() (int64, error) {
	var total int64
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(s.path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fault.New(fault.Internal, "stat database: %w", err)
		}
		total += info.Size()
	}
	return total, nil
}
