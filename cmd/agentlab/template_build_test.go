package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stubBuilder puts a script where the builder of the tested program would be. It
// prints a folder, and on standard error what it was asked.
func stubBuilder(t *testing.T) {
	t.Helper()
	exe, err := exec.LookPath("agentlab")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(exe), "../images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho \"asked $*\" >&2\ncase \"$*\" in *bad*) exit 3 ;; esac\necho /var/cache/agentlab/images/debian-12-0123\n"
	if err := os.WriteFile(filepath.Join(dir, "build.sh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
}

func TestTemplateBuild(t *testing.T) {
	run := func(args ...string) (stdout, stderr string, code int) {
		t.Helper()
		var out, errs strings.Builder
		cmd := exec.Command("agentlab", append([]string{"template", "build"}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run()
		return out.String(), errs.String(), cmd.ProcessState.ExitCode()
	}
	if _, stderr, code := run(); code != 3 || !strings.Contains(stderr, "hint: run bin/agentlab of a checkout") {
		t.Errorf("without a builder: %d, %s", code, stderr)
	}
	stubBuilder(t)
	out, stderr, code := run("--image", "cloud", "--vmid", "9100", "--name", "mine", "--refresh")
	if code != 0 || out != "/var/cache/agentlab/images/debian-12-0123\n" ||
		!strings.Contains(stderr, "/agent-runner --kind cloud --name mine --vmid 9100 --refresh\n") {
		t.Errorf("%d, %q, %s", code, out, stderr)
	}
	if out, stderr, code := run("--name", "bad"); code != 1 || out != "" || !strings.Contains(stderr, "ended with code 3") {
		t.Errorf("a builder that fails: %d, %q, %s", code, out, stderr)
	}
}
