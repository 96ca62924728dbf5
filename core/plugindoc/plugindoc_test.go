package plugindoc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/core/plugindoc"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func rich() launch.Asked {
	return launch.Asked{
		Info: plugin.Info{
			Name: "acme", Description: "disks | at Acme.", Kinds: []plugin.Kind{plugin.Hypervisor, plugin.Exposure},
			Services: []string{"a.v1.A", "b.v1.B"}, Confinement: plugin.Confinement{User: "acme", Network: true},
		},
		Schema: plugin.Schema{Block: plugin.Block{
			Attributes: []plugin.Attribute{
				{Name: "pool", Type: plugin.String, Required: true, Example: raw(`"fast"`), Description: "Where disks | are."},
				{Name: "token", Type: plugin.String, Required: true, Sensitive: true, Example: raw(`"hunter2-hunter2"`), Default: raw(`"hunter3-hunter3"`)},
				{Name: "old", Type: plugin.String, Deprecation: "Use pool instead."},
				{Name: "size", Type: plugin.Number, Required: true, Min: plugin.Limit(2.5)},
				{Name: "labels", Type: plugin.Map(plugin.String), Default: raw(`{"a":"b"}`)},
			},
			Blocks: []plugin.NestedBlock{
				{Name: "node", Nesting: plugin.NestingMap, Label: "host", MinItems: 2, Block: plugin.Block{
					Description: "One machine.", Attributes: []plugin.Attribute{{Name: "ports", Type: plugin.List(plugin.Number), Required: true}},
				}},
				{Name: "tls", Nesting: plugin.NestingSingle, Block: plugin.Block{Attributes: []plugin.Attribute{{Name: "on", Type: plugin.Bool, Required: true}}}},
				{Name: "ids", Nesting: plugin.NestingSingle, Block: plugin.Block{Attributes: []plugin.Attribute{{Name: "first", Type: plugin.Number, Default: raw(`1`)}}}},
			},
		}},
	}
}

const example = `plugin "hypervisor" "acme" {
  config {
    # Where disks | are.
    pool = "fast"

    token = "…"

    size = 2.5

    # labels = {
    #   a = "b"
    # }

    node "HOST" {
      ports = [1]
    }

    # tls {
    #   on = false
    # }

    # ids {
    #   # first = 1
    # }
  }
}

# or
plugin "exposure" "acme" {
`

func TestExample(t *testing.T) {
	got, err := plugindoc.Example(rich())
	if err != nil || !strings.HasPrefix(got, example) {
		t.Errorf("%v\n%s", err, cmp.Diff(example, got))
	}
	for _, text := range []string{got, strings.ReplaceAll(got, "# labels", "labels")} {
		if _, diags := hclsyntax.ParseConfig([]byte(got), "x.hcl", hcl.InitialPos); diags.HasErrors() {
			t.Errorf("%v\n%s", diags, text)
		}
	}
	bad := rich()
	bad.Schema.Block.Attributes[0].Example = raw(`["no", "pool"]`)
	if _, err := plugindoc.Example(bad); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `"pool"`) {
		t.Errorf("an example of another type: %v", err)
	}
}

func TestMarkdown(t *testing.T) {
	var page bytes.Buffer
	if err := plugindoc.Markdown(&page, rich()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# acme\n\nDisks | at Acme.\n",
		"| serves | `a.v1.A`, `b.v1.B` |\n",
		"| asks for | the user acme, the network |\n",
		"| `pool` | `string` |  | Where disks \\| are. *Required.* |\n",
		"| `token` | `string` | *hidden* | *Required.* *Secret:* it is never shown. |\n",
		"| `old` | `string` |  | *Deprecated:* Use pool instead. |\n",
		"| `size` | `number` |  | At least 2.5. *Required.* |\n",
		"| `labels` | `map(string)` | `{\"a\":\"b\"}` |  |\n",
		"### Block `node \"HOST\"`\n\nAt least 2 times.\n\nOne machine.\n",
		"### Block `tls`\n\nAt most once.\n",
		"### Block `ids`\n\nAt most once. Without it its keys have their defaults.\n",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(page.String(), "hunter") || t.Failed() {
		t.Error(page.String())
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "config.hcl"), filepath.Join(dir, "agentlab-plugin-b")
	text := "plugin_dir = \"" + dir + "\"\nplugin \"network\" \"a\" {\n  path = \"/opt/a\"\n}\n"
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(binary, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"./x": "./x", "a": "/opt/a", "network": "/opt/a", "b": binary} {
		if got, err := plugindoc.Find(file, name); got != want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := plugindoc.Find(file, "c"); !errors.Is(err, fault.NotFound) || !strings.Contains(fault.HintOf(err), "./agentlab-plugin-c") {
		t.Errorf("%v", err)
	}
}
