package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/check"
)

// A daemon that runs is told of what would keep the next one from working.
func TestStandingFindings(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	binary := write("agentlab-plugin-acme", "#!/bin/sh\n", 0o755)
	key := write("keys/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o644)
	file := write("config.hcl", fmt.Sprintf("plugin \"hypervisor\" \"acme\" {\n  path   = %q\n  sha256 = %q\n}\n", binary, strings.Repeat("0", 64)), 0o600)
	cfg, _ := config.Inspect(file)
	if cfg == nil {
		t.Fatal("the configuration cannot be read")
	}
	said := ""
	for _, f := range standing(check.Standing(cfg)) {
		if f.Level != api.LevelWarning || f.Source != "configuration" {
			t.Errorf("%+v", f)
		}
		said += f.Message + " (" + f.Fix + ")\n"
	}
	for _, want := range []string{
		"mode 0644 of the private key " + key + " lets others read", "(run chmod 0600 " + key + ")",
		file + ":1: ", "is pinned (if this binary is the one you want, pin it: agentlab plugin lock)",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("nobody said %q:\n%s", want, said)
		}
	}
	// Binaries are looked at, and told of, when they are started.
	if got := mistakes(cfg); len(got) != 1 || !strings.Contains(got[0], "private key "+key) || !strings.Contains(got[0], "run chmod 0600 ") {
		t.Errorf("mistakes for the log of a start: %q", got)
	}
	if got := standing(nil); len(got) != 1 || got[0].Level != api.LevelOK {
		t.Errorf("with all in order: %+v", got)
	}
}
