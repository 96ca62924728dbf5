package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/secrets"
)

func held(b *bench) conformance.SecretsOptions {
	b.put("default.age", seal(b.t, document, b.key.Recipient()))
	b.put("broken.age", seal(b.t, document, b.key.Recipient())[:250])
	return conformance.SecretsOptions{Bundle: "default", Env: "API_KEY", Value: value, Broken: "broken"}
}

func TestConformance(t *testing.T) {
	b := newBench(t)
	conformance.Run(t, conformance.Secrets(conformance.Local[secrets.Driver](b.driver), held(b)))
}

func TestConformanceOfBinary(t *testing.T) {
	b := newBench(t)
	opts := held(b)
	path := filepath.Join(t.TempDir(), "agentlab-plugin-secrets-age")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	cfg, err := json.Marshal(config{Identity: b.identity, BundleDir: b.dir})
	if err != nil {
		t.Fatal(err)
	}
	conformance.Test(t, conformance.Plan{
		Binary: conformance.Binary{Path: path, Config: cfg, Log: b.driver.log},
		Level:  conformance.LevelSemantics, Destructive: true, Secrets: opts,
	})
	if log := b.log.String(); strings.Contains(log, value) || !strings.Contains(log, "bundle opened") {
		t.Errorf("the plugin's log lacks the opening or tells a value:\n%s", log)
	}
}

func TestValidateAndHealth(t *testing.T) {
	got := validate(t.Context(), json.RawMessage(`{"identity":"age.key","bundle_dir":"/etc/x","allow_plaintext":false}`))
	if len(got) != 1 || !strings.Contains(got[0].Summary, "identity must be an absolute path") {
		t.Errorf("diagnostics = %+v", got)
	}
	b := newBench(t)
	if h := b.health(t.Context()); h.State != "ready" {
		t.Errorf("health = %+v", h)
	}
	if err := os.Chmod(b.identity, 0o644); err != nil {
		t.Fatal(err)
	}
	if h := b.health(t.Context()); h.State != "degraded" || !strings.Contains(h.Message, "chmod 600") {
		t.Errorf("health with an open key = %+v", h)
	}
}
