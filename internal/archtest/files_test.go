package archtest_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hardLimit is the length in lines over which a hand-written file must be cut.
const hardLimit = 600

func TestFileLength(t *testing.T) {
	for _, p := range packages(t) {
		for _, f := range slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles) {
			if strings.HasSuffix(f, ".pb.go") {
				continue
			}
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b, []byte("\n")); n > hardLimit {
				t.Errorf("%s/%s has %d lines, the limit is %d", p.ImportPath, f, n, hardLimit)
			}
		}
	}
}

func TestEveryPackageHasADoc(t *testing.T) {
	for _, p := range packages(t) {
		if strings.Contains(p.ImportPath, "/sdk/internal/proto/") || strings.Contains(p.ImportPath, "/testdata/") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(p.Dir, "doc.go"))
		if err != nil {
			t.Errorf("%s: no doc.go", p.ImportPath)
			continue
		}
		if !bytes.HasPrefix(b, []byte("// Package ")) && !bytes.HasPrefix(b, []byte("// Command ")) {
			t.Errorf("%s: doc.go must begin with \"// Package …\" or \"// Command …\"", p.ImportPath)
		}
	}
}
