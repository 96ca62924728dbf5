package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/config"
)

// TestConfigurationReference wants the tables of docs/configuration.md as the
// code has them.
func TestConfigurationReference(t *testing.T) {
	parts := map[string]string{}
	for name, fields := range map[string][]config.Field{"config.hcl": config.Schema(), "profiles": config.ProfileSchema()} {
		var b bytes.Buffer
		schemaMarkdown(&b, fields)
		parts[name] = b.String()
	}
	generated(t, parts)
}

// generated compares parts of docs/configuration.md with what they should be; the
// text around them is written by hand.
func generated(t *testing.T, parts map[string]string) {
	t.Helper()
	const path = "../../docs/configuration.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(doc)
	for name, text := range parts {
		begin, end := "<!-- keys of "+name+", written by make generate -->\n", "\n<!-- end of "+name+" -->"
		before, rest, ok := strings.Cut(want, begin)
		_, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s has no %q … %q", path, begin, end)
		}
		want = before + begin + text + end + after
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(doc)); diff != "" {
		t.Errorf("docs/configuration.md is old; run: go test ./cmd/agentlab -run %s -update\n%s", t.Name(), diff)
	}
}
