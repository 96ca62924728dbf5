package jobrun_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/gitrepo"
)

const runScriptPage = "../../../../docs/run-script.md"

// The script that the documentation prints does what that says.
func TestDocumentedScript(t *testing.T) {
	page, err := os.ReadFile(runScriptPage)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```sh\n")
	script, _, ok := strings.Cut(rest, "```")
	if !ok || !strings.HasPrefix(script, "#!/bin/sh\n") {
		t.Fatalf("no script in %s", runScriptPage)
	}
	h := newHost(t)
	origin := h.packed(map[string]string{".agentlab/run.sh": script, "README": "one\ntwo\n"})
	g := newGuest(t, h)
	if err := g.Run(t.Context(), job("")); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	if !strings.Contains(string(h.log), "task: do it\n") {
		t.Errorf("log:\n%s", h.log)
	}
	if got := strings.TrimSpace(h.files["lines.txt"]); got != "2" {
		t.Errorf("lines.txt holds %q, files %q", got, h.files)
	}
	bundle := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(bundle, []byte(h.files["changes.bundle"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := gitrepo.Fetch(t.Context(), origin, bundle, "agentlab/job_1"); err != nil || got != h.final.Commit {
		t.Errorf("fetched %s %v, want %s", got, err, h.final.Commit)
	}
}

// Every variable that a job gets has its row, and no other has one.
func TestDocumentedEnvironment(t *testing.T) {
	page, err := os.ReadFile(runScriptPage)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.packed(map[string]string{".agentlab/run.sh": "#!/usr/bin/env -S sh\ntest -z \"$(cat)\" && env && pwd >>\"$AGENTLAB_ARTIFACTS_DIR/pwd\"; exit $#\n"})
	g := newGuest(t, h)
	if err := g.Run(t.Context(), job("")); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	shells := []string{"PWD", "OLDPWD", "SHLVL", "_"} // sh's own
	given := []string{"MY_KEY", "GORACE"}             // as newGuest gives them
	for line := range strings.Lines(string(h.log)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(line, "agentlab: ") || slices.Contains(shells, name) || slices.Contains(given, name) {
			continue
		}
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("%s=%s has no row in %s", name, value, runScriptPage)
		}
	}
	for row := range strings.Lines(string(page)) {
		name, ok := strings.CutPrefix(row, "| `AGENTLAB_")
		if name, _, _ = strings.Cut(name, "`"); ok && !strings.Contains(string(h.log), "AGENTLAB_"+name+"=") {
			t.Errorf("AGENTLAB_%s is described and not given:\n%s", name, h.log)
		}
	}
	if want := g.Layout.At("/workspace/repo"); strings.TrimSpace(h.files["pwd"]) != want {
		t.Errorf("it ran in %q, want %s", h.files["pwd"], want)
	}
}
