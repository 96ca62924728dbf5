package bubble_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/bubble"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestWrap(t *testing.T) {
	program := filepath.Join(t.TempDir(), "bwrap")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	extra := []string{"--bind", "/scratch dir", "/scratch dir"}
	got, err := bubble.Wrap(bubble.Config{Program: program, Repo: "/w/repo", Home: "/h", Secrets: t.TempDir(), ExtraArgs: extra}, []string{"run", "a b"})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(got, "\x00")
	for _, want := range [][]string{
		{"--ro-bind", "/", "/"}, {"--bind", "/tmp", "/tmp"}, {"--bind", "/run", "/run"}, {"--bind", "/w/repo", "/w/repo"}, extra,
	} {
		if !strings.Contains(all, strings.Join(want, "\x00")) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if run, secrets := slices.Index(got, "/run"), slices.Index(got, "--ro-bind"); run < 0 || secrets < 0 {
		t.Errorf("%q", got)
	}
	if tail := got[len(got)-3:]; !slices.Equal(tail, []string{"--", "run", "a b"}) {
		t.Errorf("ends with %q", tail)
	}
}

func TestWrapWithoutProgram(t *testing.T) {
	_, err := bubble.Wrap(bubble.Config{Program: "/nonexistent/bwrap"}, nil)
	if !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
		t.Errorf("error %v", err)
	}
}

func TestRealSandbox(t *testing.T) {
	if _, err := exec.LookPath("bwrap"); err != nil {
		t.Skip("needs bwrap")
	}
	repo, home := t.TempDir(), t.TempDir()
	script := "echo x >" + repo + "/written && ! echo x >/etc/agentlab-test 2>/dev/null"
	argv, err := bubble.Wrap(bubble.Config{Repo: repo, Home: home, Secrets: "/nonexistent"}, []string{"/bin/sh", "-c", script})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "namespace") || strings.Contains(string(out), "Operation not permitted") {
			t.Skipf("needs user namespaces: %s", out)
		}
		t.Errorf("%v: %s", err, out)
	}
}
