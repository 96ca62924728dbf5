package guest

import (
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/secret"
)

func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"a", "./a//b", "../x", "a/../../b", "/etc/passwd", "agent.log", "a\x00", "a\\..\\b", strings.Repeat("a/", 50), "日本/x.txt", "..."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := cleanPath(raw)
		if err != nil {
			if p != "" {
				t.Errorf("%q: refused and answered %q", raw, p)
			}
			return
		}
		first, _, _ := strings.Cut(p, "/")
		if p != path.Clean(p) || !filepath.IsLocal(p) || strings.Contains(p, "..") && !strings.Contains(raw, "..") ||
			strings.ContainsAny(p, "\\\x00\n") || len(p) > longestPath || first == guestapi.ArtifactLog {
			t.Errorf("%q became %q", raw, p)
		}
		for part := range strings.SplitSeq(p, "/") {
			if part == ".." || part == "." || part == "" {
				t.Errorf("%q became %q", raw, p)
			}
		}
		if again, err := cleanPath(p); err != nil || again != p {
			t.Errorf("%q is not stable: %q, %v", p, again, err)
		}
	})
}

func FuzzMaskLines(f *testing.F) {
	const value = "s3cret-value"
	f.Add([]byte("a\n" + value + "\nb"))
	f.Add([]byte(value))
	f.Add([]byte("\n\n" + value + value + "\n"))
	red := secret.NewRedactor(secret.New(value))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := maskLines(red, in)
		if len(out) != len(in) || red.Contains(out) || strings.Count(string(out), "\n") != strings.Count(string(in), "\n") {
			t.Errorf("%q became %q", in, out)
		}
	})
}
