package jobrun

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/guestapi"
)

func TestChoose(t *testing.T) {
	with, without := t.TempDir(), t.TempDir()
	script := filepath.Join(with, ".agentlab/run.sh")
	if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		command, mode, repo, installed string
		argv                           []string
		stdin                          string
	}{
		"shell line":         {"make test", "default", with, "bash", []string{"/bin/bash", "-c", "make test"}, ""},
		"without bash":       {"make test", "default", with, "", []string{"/bin/sh", "-c", "make test"}, ""},
		"script before cli":  {"claude", "default", with, "claude", []string{script}, ""},
		"claude":             {"claude", "default", without, "claude", []string{"/bin/claude", "--print"}, "do it"},
		"claude, dangerous":  {"claude", "dangerous", without, "claude", []string{"/bin/claude", "--print", "--dangerously-skip-permissions"}, "do it"},
		"codex, dangerous":   {"codex", "dangerous", without, "codex", []string{"/bin/codex", "exec", "--dangerously-bypass-approvals-and-sandbox"}, "do it"},
		"whatever is there":  {"", "default", without, "opencode", []string{"/bin/opencode", "run", "--", "do it"}, ""},
		"another is missing": {"claude", "default", without, "codex", nil, ""},
		"nothing":            {"", "default", without, "", nil, ""},
	} {
		find := func(program string) (string, error) {
			if strings.Contains(c.installed, program) {
				return "/bin/" + program, nil
			}
			return "", os.ErrNotExist
		}
		inv, err := choose(guestapi.Job{Command: c.command, Mode: c.mode, Task: "do it"}, c.repo, find)
		if diff := cmp.Diff(c.argv, inv.argv); diff != "" || inv.stdin != c.stdin || (err == nil) != (c.argv != nil) {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}
