package layout

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A guest may have /var on a disk of its own.
func TestFlushReachesEveryFileSystemWrittenTo(t *testing.T) {
	l := Layout{Root: t.TempDir()}.Lazily()
	if err := os.Mkdir(l.At("/var"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", l.At("/var"), "tmpfs", 0, ""); err != nil {
		t.Skip("needs root: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(l.At("/var"), 0) })
	for _, path := range []string{"/etc/hostname", "/etc/hosts", "/var/lib/credential", "/var/lib/seed.json"} {
		if err := l.Write(l.At(path), []byte("x"), 0o600, Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	got := l.touched.list()
	slices.Sort(got)
	if want := []string{l.At("/etc"), l.At("/var/lib")}; !slices.Equal(got, want) {
		t.Errorf("flushed are %q, want %q", got, want)
	}
	if err := l.Flush(); err != nil {
		t.Error(err)
	}
}
