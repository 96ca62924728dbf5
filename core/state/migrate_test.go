package state

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/fault"
)

var update = flag.Bool("update", false, "rewrite golden files")

func schemaOf(t *testing.T, s *Store) string {
	t.Helper()
	lines, err := many(t.Context(), s.reader, func(row scanner) (sql string, err error) { return sql, row.Scan(&sql) },
		"schema", `SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name`)
	check(t, err)
	return strings.Join(lines, ";\n") + ";\n"
}

func TestSchemaIsTheGoldenOne(t *testing.T) {
	got := schemaOf(t, open(t))
	golden := filepath.Join("testdata", "schema.golden.sql")
	if *update {
		check(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	check(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("schema differs; a released migration must not change, add a new one (-want +got):\n%s", diff)
	}
}

func TestEveryTableIsStrict(t *testing.T) {
	for table := range strings.SplitSeq(schemaOf(t, open(t)), ";\n") {
		if strings.HasPrefix(table, "CREATE TABLE") && !strings.Contains(table, "sqlite_sequence") && !strings.Contains(table, ") STRICT") {
			t.Errorf("not strict: %s", table)
		}
	}
}

// bare opens a file without migrating it.
func bare(t *testing.T, path string) *Store {
	t.Helper()
	s := &Store{path: path}
	var err error
	check(t, touch(path))
	s.writer, err = pool(path, writerOptions, 1)
	check(t, err)
	s.reader, err = pool(path, readerOptions, readers)
	check(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestMigrateKeepsRowsAndABackup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	files := fstest.MapFS{"0001_one.sql": {Data: []byte("CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (7);")}}
	s := bare(t, path)
	check(t, s.migrate(t.Context(), files))
	if _, err := os.Stat(path + ".v0.backup"); err == nil {
		t.Error("an empty file was backed up")
	}
	files["0002_two.sql"] = &fstest.MapFile{Data: []byte("ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 1; DELETE FROM a;")}
	check(t, s.migrate(t.Context(), files))
	if v, err := s.version(t.Context()); err != nil || v != 2 {
		t.Errorf("version is %d, %v", v, err)
	}
	old := bare(t, path+".v1.backup")
	n, err := one(t.Context(), old.reader, func(row scanner) (n int, err error) { return n, row.Scan(&n) }, "a", "SELECT sum(x) FROM a")
	if v, _ := old.version(t.Context()); err != nil || n != 7 || v != 1 {
		t.Errorf("backup holds %d at version %d, %v", n, v, err)
	}
	if info, err := os.Stat(path + ".v1.backup"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup: %v, %v", info.Mode(), err)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	s := bare(t, filepath.Join(t.TempDir(), "a.db"))
	files := fstest.MapFS{"0001_one.sql": {Data: []byte("CREATE TABLE a (x INTEGER) STRICT; CREATE TABLE a (x INTEGER) STRICT;")}}
	if s.migrate(t.Context(), files) == nil {
		t.Fatal("no error")
	}
	v, err := s.version(t.Context())
	n, err2 := one(t.Context(), s.writer, func(row scanner) (n int, err error) { return n, row.Scan(&n) }, "tables", "SELECT count(*) FROM sqlite_schema")
	if err != nil || err2 != nil || v != 0 || n != 0 {
		t.Errorf("version %d, %d tables, %v, %v", v, n, err, err2)
	}
}

func TestMigrationsOutOfPlaceAreRefused(t *testing.T) {
	for _, names := range [][]string{{"0002_two.sql"}, {"0001_one.sql", "0003_three.sql"}, {"one.sql"}, {"0001_a.sql", "0001_b.sql"}} {
		files := fstest.MapFS{}
		for _, name := range names {
			files[name] = &fstest.MapFile{Data: []byte("SELECT 1;")}
		}
		if _, err := readMigrations(files); fault.ClassOf(err) != fault.Internal || !strings.Contains(err.Error(), "out of place") {
			t.Errorf("%v: error = %v", names, err)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s, err := Open(t.Context(), path)
	check(t, err)
	_, err = s.writer.ExecContext(t.Context(), "PRAGMA user_version = 99")
	check(t, err)
	check(t, s.Close())
	_, err = Open(t.Context(), path)
	wantClass(t, err, fault.Precondition)
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
}

func TestWhatIsNoDatabaseIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	check(t, os.WriteFile(path, []byte(strings.Repeat("this is a shopping list\n", 100)), 0o600))
	_, err := Open(t.Context(), path)
	wantClass(t, err, fault.Internal)
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "damaged") || fault.HintOf(err) == "" {
		t.Errorf("error = %v, hint %q", err, fault.HintOf(err))
	}
	if b, _ := os.ReadFile(path); !strings.HasPrefix(string(b), "this is a shopping list") {
		t.Error("the file was changed")
	}
}

func TestDamagedPagesAreToldAsSuch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s, err := Open(t.Context(), path)
	check(t, err)
	putSandbox(t, s, "a")
	check(t, s.Close())
	b, err := os.ReadFile(path)
	check(t, err)
	for i := 4096; i < len(b); i++ {
		b[i] = 0xff
	}
	check(t, os.WriteFile(path, b, 0o600))
	s, err = Open(t.Context(), path)
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
		_, err = s.Sandboxes(context.Background(), SandboxFilter{All: true})
	}
	wantClass(t, err, fault.Internal)
	if !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error = %v", err)
	}
}

func TestFilesAreClosedToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd ?#%name.db")
	s, err := Open(t.Context(), path)
	check(t, err)
	defer func() { check(t, s.Close()) }()
	putSandbox(t, s, "a")
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	check(t, err)
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if len(names) != 3 {
		t.Errorf("files are %v, want the database, -wal and -shm", names)
	}
}
