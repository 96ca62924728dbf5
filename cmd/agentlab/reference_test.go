package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/control"
)

const docs = "../../docs"

// reference is what docs has of the command table, by path.
func reference(t *testing.T) map[string][]byte {
	t.Helper()
	var markdown, man bytes.Buffer
	app().Markdown(&markdown)
	app().Man(&man)
	files := map[string][]byte{"cli.md": markdown.Bytes(), "man/agentlab.1": man.Bytes()}
	for _, a := range allAnswers() {
		schema, err := control.JSONSchema(a.Name, a.Type)
		if err != nil {
			t.Fatal(err)
		}
		path := "schema/" + a.Name + ".json"
		if old, ok := files[path]; ok && !bytes.Equal(old, schema) {
			t.Errorf("two different answers are called %s", a.Name)
		}
		files[path] = schema
	}
	return files
}

// allAnswers are those of the commands, and the error.
func allAnswers() []cli.Answer {
	all := []cli.Answer{cli.AnswerOf[api.Problem]("problem")}
	for _, c := range app().Commands {
		all = append(all, c.Answers...)
	}
	return all
}

// TestReference holds the reference, the manual page and the schemas to the
// command table.
func TestReference(t *testing.T) {
	files := reference(t)
	if *update {
		if err := os.RemoveAll(filepath.Join(docs, "schema")); err != nil {
			t.Fatal(err)
		}
		for path, text := range files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(docs, path)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(docs, path), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for path, got := range files {
		want, err := os.ReadFile(filepath.Join(docs, path))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("docs/%s is old; run: go test ./cmd/agentlab -run TestReference -update\n%s", path, diff)
		}
	}
	there, err := filepath.Glob(docs + "/schema/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if rel, _ := filepath.Rel(docs, path); !slices.Contains(slices.Collect(maps.Keys(files)), rel) {
			t.Errorf("docs/%s belongs to no command", rel)
		}
	}
}

// The manual page has no date, which would say nothing about what it describes.
func TestManualPage(t *testing.T) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("needs mandoc: scripts/install_deps.sh test")
	}
	out, _ := exec.Command("mandoc", "-T", "lint", docs+"/man/agentlab.1").CombinedOutput() // its code counts the date
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "missing date") {
			t.Error(line)
		}
	}
	text, err := exec.Command("mandoc", "-T", "ascii", docs+"/man/agentlab.1").Output()
	if err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(".\b").ReplaceAllString(string(text), "")
	for _, c := range app().Commands {
		if c.Run != nil && c.Hidden == strings.Contains(plain, "agentlab "+c.Name) {
			t.Errorf("agentlab %s: hidden %v, and the manual page thinks otherwise", c.Name, c.Hidden)
		}
	}
}
