package launch

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSumIsOfWhatIsThere: a sum is remembered only while the file stays as it is,
// whatever its size and its time say.
func TestSumIsOfWhatIsThere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "binary")
	summed := func(content string) (known bool) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		want := sha256.Sum256([]byte(content))
		if got, err := sum(f); err != nil || got != hex.EncodeToString(want[:]) {
			t.Errorf("sum of %q is %s, %v", content, got, err)
		}
		v, _ := versionOf(f)
		_, known = sums.Load(v)
		return known
	}
	modified := time.Now().Add(-time.Hour)
	for _, content := range []string{"first", "other"} {
		// In place, so that it is the same file.
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
		if summed(content) {
			t.Error("remembered, though it may be changed again at this time")
		}
		time.Sleep(settleTime + 100*time.Millisecond)
		for range 2 { // what is made, and what is remembered
			if !summed(content) {
				t.Error("not remembered")
			}
		}
	}
}
