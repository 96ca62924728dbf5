package guestapi_test

import (
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/guestapi"
)

func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"a", "./a//b", "../x", "a/../../b", "/etc/passwd", "agent.log", "a\x00", "a\\..\\b", strings.Repeat("a/", 50), "日本/x.txt", "..."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := guestapi.CleanPath(raw)
		if err != nil {
			if p != "" {
				t.Errorf("%q: refused and answered %q", raw, p)
			}
			return
		}
		first, _, _ := strings.Cut(p, "/")
		if p != path.Clean(p) || !filepath.IsLocal(p) || strings.Contains(p, "..") && !strings.Contains(raw, "..") ||
			strings.ContainsAny(p, "\\\x00\n") || len(p) > 1024 || first == guestapi.ArtifactLog {
			t.Errorf("%q became %q", raw, p)
		}
		for part := range strings.SplitSeq(p, "/") {
			if part == ".." || part == "." || part == "" {
				t.Errorf("%q became %q", raw, p)
			}
		}
		if again, err := guestapi.CleanPath(p); err != nil || again != p {
			t.Errorf("%q is not stable: %q, %v", p, again, err)
		}
	})
}
