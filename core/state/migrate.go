package state

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations are the files that make the schema, in order of their numbers.
// They are append-only: a released one never changes.
func migrations() fs.FS {
	sub, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		panic(err) // the path is a constant
	}
	return sub
}

// migrate brings the file's schema from its user_version to the newest.
func (s *Store) migrate(ctx context.Context, files fs.FS) error {
	scripts, err := readMigrations(files)
	if err != nil {
		return err
	}
	version, err := s.version(ctx)
	if err != nil {
		return err
	}
	switch {
	case version > len(scripts):
		return fault.New(fault.Precondition, "schema version %d is newer than this program's %d", version, len(scripts)).
			WithHint("start the newer agentlabd again, or put the backup made before its first start in place")
	case version == len(scripts):
		return nil
	case version > 0:
		if err := s.backup(ctx, version); err != nil {
			return err
		}
	}
	for i := version; i < len(scripts); i++ {
		err := s.write(ctx, fmt.Sprintf("apply migration %d", i+1), func(ctx context.Context, t *tx) error {
			// Another process may have been faster.
			var now int
			if err := t.QueryRowContext(ctx, "PRAGMA user_version").Scan(&now); err != nil || now > i {
				return err
			}
			if err := t.exec(ctx, scripts[i]); err != nil {
				return err
			}
			return t.exec(ctx, "PRAGMA user_version = "+strconv.Itoa(i+1))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) version(ctx context.Context) (int, error) {
	var v int
	if err := s.writer.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, fmt.Errorf("read schema version: %w", classify(err))
	}
	return v, nil
}

// readMigrations gives the scripts in order and refuses gaps and strangers.
func readMigrations(files fs.FS) ([]string, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, fault.New(fault.Internal, "list migrations: %w", err)
	}
	var scripts []string
	for i, name := range names { // Glob sorts
		number, _, ok := strings.Cut(path.Base(name), "_")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n != i+1 {
			return nil, fault.New(fault.Internal, "migration %s is out of place: number %d was expected", name, i+1)
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fault.New(fault.Internal, "read migration: %w", err)
		}
		scripts = append(scripts, string(b))
	}
	return scripts, nil
}

// backup copies the database as it is to "<path>.v<version>.backup".
func (s *Store) backup(ctx context.Context, version int) error {
	final := fmt.Sprintf("%s.v%d.backup", s.path, version)
	temp := final + ".part"
	if err := os.Remove(temp); err != nil && !os.IsNotExist(err) {
		return fault.New(fault.Internal, "remove stale backup: %w", err)
	}
	if err := touch(temp); err != nil {
		return fault.New(fault.Internal, "make backup: %w", err)
	}
	if _, err := s.writer.ExecContext(ctx, "VACUUM INTO ?", temp); err != nil {
		return fmt.Errorf("back up before migrating: %w", classify(err))
	}
	if err := os.Rename(temp, final); err != nil {
		return fault.New(fault.Internal, "name backup: %w", err)
	}
	return nil
}
