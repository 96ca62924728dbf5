package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The page for operators has every key, and its example is a bundle.
func TestDocumentationHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "bundle.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	var walk func(rl *rule, path string)
	walk = func(rl *rule, path string) {
		switch {
		case rl.shape == fixed:
			for name, f := range rl.fields {
				walk(f, join(path, name))
			}
		case rl.shape == open:
			walk(rl.elem, join(path, "NAME"))
		default:
			rows++
			if !strings.Contains(string(text), "\n| `"+path+"` | ") {
				t.Errorf("docs/bundle.md has no row for %s", path)
			}
		}
	}
	walk(root, "")
	_, table, _ := strings.Cut(string(text), "| key | value |")
	if n := strings.Count(table, "\n| `"); n != rows {
		t.Errorf("docs/bundle.md has %d rows for %d keys", n, rows)
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	if err := Validate([]byte(example)); err != nil {
		t.Errorf("the example of docs/bundle.md: %v", err)
	}
}
