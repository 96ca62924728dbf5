package layout_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// Both ways replace a file, and a link instead of what it points to.
func TestWrite(t *testing.T) {
	for name, lazy := range map[string]bool{"whole": false, "lazy": true} {
		t.Run(name, func(t *testing.T) {
			l := layout.Layout{Root: t.TempDir()}
			if lazy {
				l = l.Lazily()
			}
			target := l.At("/target")
			if err := os.WriteFile(target, []byte("untouched"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(l.At("/etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, l.At("/etc/file")); err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"first", "2"} {
				if err := l.Write(l.At("/etc/file"), []byte(text), 0o640, layout.Owner{}); err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(l.At("/etc/file"))
				st, statErr := os.Lstat(l.At("/etc/file"))
				if err != nil || statErr != nil || string(b) != text || st.Mode() != 0o640 {
					t.Errorf("%q with mode %v, %v, %v", b, st.Mode(), err, statErr)
				}
			}
			if err := l.Write(l.At("/new/dir/file"), nil, 0o600, layout.Owner{}); err != nil {
				t.Error(err)
			}
			if b, _ := os.ReadFile(target); string(b) != "untouched" {
				t.Errorf("the link's target holds %q", b)
			}
			if err := l.Flush(); err != nil {
				t.Error(err)
			}
			if left, _ := filepath.Glob(l.At("/etc/.agentlab-*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}
