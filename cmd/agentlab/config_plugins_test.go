package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/check"
	"github.com/agentlab/agentlab/core/plugindoc"
	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// TestPluginReference wants in docs/plugins what each plugin's binary publishes,
// and that the plugin takes the example that it is given there.
func TestPluginReference(t *testing.T) {
	if testing.Short() {
		t.Skip("looks at binaries, which may be older than the source")
	}
	mains, err := filepath.Glob("../../plugins/*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no plugins: %v", err)
	}
	want := map[string]bool{}
	for _, path := range mains {
		name := filepath.Base(filepath.Dir(path))
		if name == "sim" {
			continue // for tests
		}
		want[name+".md"] = true
		t.Run(name, func(t *testing.T) {
			binary := testkit.Bin(t, plugin.BinaryPrefix+name)
			asked, err := plugindoc.Ask(t.Context(), binary)
			if err != nil {
				t.Fatal(err)
			}
			page(t, "../../docs/plugins/"+name+".md", asked)
			takesItsExample(t, binary, asked)
		})
	}
	there, err := os.ReadDir("../../docs/plugins")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range there {
		if !want[e.Name()] {
			t.Errorf("docs/plugins/%s is of no plugin", e.Name())
		}
	}
}

func page(t *testing.T, path string, asked launch.Asked) {
	t.Helper()
	var got bytes.Buffer
	if err := plugindoc.Markdown(&got, asked); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got.String(), string(old)); diff != "" {
		t.Errorf("%s is old; run make build, and go test ./cmd/agentlab -run TestPluginReference -update\n%s", path, diff)
	}
}

func takesItsExample(t *testing.T, binary string, asked launch.Asked) {
	t.Helper()
	text, err := plugindoc.Example(asked)
	if err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Parse([]byte(text), "example.hcl")
	if diags.HasErrors() || len(cfg.Plugins) != 1 {
		t.Fatalf("%v\n%s", diags, text)
	}
	run, err := os.MkdirTemp("/tmp", "al")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(run) }()
	block := check.Block(cfg.Plugins[0])
	block.Path = binary
	said, err := pluginhost.Validate(t.Context(), pluginhost.Config{RunDir: run}, block, hclog.NewNullLogger())
	if err != nil || said.HasErrors() {
		t.Errorf("%v, %v\n%s", said, err, text)
	}
	for _, d := range said {
		if d.Severity == hcl.DiagWarning {
			t.Errorf("warning: %v", d)
		}
	}
}
