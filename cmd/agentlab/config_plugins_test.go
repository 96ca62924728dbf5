package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// TestPluginReference wants in docs/configuration.md what each plugin's binary
// publishes of its config block.
func TestPluginReference(t *testing.T) {
	if testing.Short() {
		t.Skip("looks at binaries, which may be older than the source")
	}
	mains, err := filepath.Glob("../../plugins/*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no plugins: %v", err)
	}
	var b bytes.Buffer
	for _, path := range mains {
		name := filepath.Base(filepath.Dir(path))
		if name == "sim" {
			continue // for tests
		}
		fmt.Fprintf(&b, "\n### `%s`\n", name)
		pluginMarkdown(&b, publishedSchema(t, name).Block)
	}
	generated(t, map[string]string{"plugins": b.String()})
}

func publishedSchema(t *testing.T, name string) *plugin.Schema {
	t.Helper()
	run, err := os.MkdirTemp("/tmp", "al")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(run) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := launch.Start(ctx, launch.Spec{Path: testkit.Bin(t, plugin.BinaryPrefix+name), Kind: "any", Name: name, RunDir: run})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
	}()
	schema, err := plugin.NewClient(p.Conn()).Schema(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func pluginMarkdown(w io.Writer, b plugin.Block) {
	if len(b.Attributes) > 0 {
		fmt.Fprint(w, "\n| key | type | default | |\n|---|---|---|---|\n")
	}
	for _, a := range b.Attributes {
		def, text := "", strings.ReplaceAll(a.Description, "|", `\|`)
		if raw, ok := a.Default.(json.RawMessage); ok {
			def = "`" + string(raw) + "`"
		}
		if len(a.OneOf) > 0 {
			text += " One of `" + strings.Join(a.OneOf, "`, `") + "`."
		}
		if a.Required {
			text += " *Required.*"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", a.Name, plainType(string(a.Type.JSON())), def, text)
	}
	for _, n := range b.Blocks {
		fmt.Fprintf(w, "\nBlock `%s`: %s\n", n.Name, n.Block.Description)
		pluginMarkdown(w, n.Block)
	}
}

// plainType says a type of cty in words.
func plainType(raw string) string {
	return strings.NewReplacer(`["list","string"]`, "list of strings", `["list",`, "list of ", `["map",`, "map of ", `]`, "", `"`, "").Replace(raw)
}
