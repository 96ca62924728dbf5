package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/fault"
)

const value = "hunter2-hunter2"

// vault writes a program that keeps bundles.
func vault(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vault")
	script := `#!/bin/sh
case $AGENTLAB_BUNDLE in
default) printf 'version: 1\nenv:\n  API_KEY: ` + value + `\n' ;;
broken) printf '{"version":1,"envv":{"A":"` + value + `"}}' ;;
angry) echo ` + value + ` >&2; exit 1 ;;
slow) sleep 60 & wait ;;
endless) exec cat /dev/zero ;;
*) exit 3 ;;
esac
`
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

var bundles = []string{"slow", "default", "broken", "angry", "endless", "gone"}

// The finished binary keeps its contract, and tells no value in its log.
func TestConformance(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "agentlab-plugin-secrets-exec")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	cfg, err := json.Marshal(map[string]any{"command": []string{vault(t)}, "bundles": []string{"default", "broken"}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	conformance.Test(t, conformance.Plan{
		Binary: conformance.Binary{Path: binary, Config: cfg, Log: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace})},
		Level:  conformance.LevelSemantics, Destructive: true,
		Secrets: conformance.SecretsOptions{Bundle: "default", Env: "API_KEY", Value: value, Broken: "broken"},
	})
	if strings.Contains(log.String(), value) || !strings.Contains(log.String(), "bundle opened") {
		t.Errorf("the log lacks the opening or tells a value:\n%s", log.String())
	}
}

func TestFailures(t *testing.T) {
	d := &driver{command: []string{vault(t)}, bundles: bundles, timeout: 500 * time.Millisecond, log: hclog.NewNullLogger()}
	for name, class := range map[string]fault.Class{
		"angry": fault.Unavailable, "endless": fault.Timeout, "slow": fault.Timeout, "gone": fault.NotFound, "unknown": fault.NotFound, "../default": fault.Invalid,
	} {
		start := time.Now()
		_, err := d.Open(t.Context(), name, "test")
		if !errors.Is(err, class) || strings.Contains(fmt.Sprintf("%+v %s", err, fault.HintOf(err)), value) {
			t.Errorf("%s: %v (class %s), want class %s and no value", name, err, fault.ClassOf(err), class)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
	out := &limited{}
	if n, err := out.Write(make([]byte, 64<<20)); n != 64<<20 || err != nil || out.Len() > 64<<20-1 {
		t.Errorf("a limited buffer keeps %d bytes of 64 MiB", out.Len())
	}
	d.command[0] = "/nowhere/vault"
	if _, err := d.Open(t.Context(), "default", "test"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a program that is not there: %v", err)
	}
	if h := d.health(t.Context()); h.State != "unavailable" || h.Message == "" {
		t.Errorf("health is %+v", h)
	}
}

func TestValidate(t *testing.T) {
	for cfg, want := range map[string]string{
		`{"command":["/bin/true"],"bundles":["default"],"timeout_seconds":5}`: "",
		`{"command":["vault"],"bundles":["default"],"timeout_seconds":5}`:     "[command]",
		`{"command":[],"bundles":["default"],"timeout_seconds":5}`:            "[command]",
		`{"command":["/bin/true"],"bundles":["ok","../x"]}`:                   "[bundles 1]",
	} {
		got := validate(t.Context(), json.RawMessage(cfg))
		if (want == "") != (len(got) == 0) || want != "" && fmt.Sprint(got[0].Path) != want {
			t.Errorf("%s: %+v, want one about %s", cfg, got, want)
		}
	}
}
