package pluginhost

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// nested has a block of each nesting, as it arrives from a plugin.
func nested() *plugin.Schema {
	node := plugin.Block{Attributes: []plugin.Attribute{
		{Name: "port", Type: plugin.Number, Default: json.RawMessage(`8006`), Max: plugin.Limit(65535)},
		{Name: "old", Type: plugin.Bool, Deprecation: "leave it out"},
	}}
	return &plugin.Schema{Version: 1, Block: plugin.Block{
		Attributes: []plugin.Attribute{
			{Name: "bytes", Type: plugin.Number},
			{Name: "tags", Type: plugin.Map(plugin.String)},
			{Name: "passwords", Type: plugin.List(plugin.String), Sensitive: true, OneOf: []string{"allowed-one"}},
		},
		Blocks: []plugin.NestedBlock{
			{Name: "single", Nesting: plugin.NestingSingle, Block: node},
			{Name: "item", Nesting: plugin.NestingList, MaxItems: 2, Block: node},
			{Name: "node", Nesting: plugin.NestingMap, Label: "name", MaxItems: 2, Block: node},
		},
	}}
}

func decodeText(t *testing.T, text string, schema *plugin.Schema) *decoded {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(text), "f.hcl", hcl.Pos{Line: 1, Column: 1})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return decodeBlock(Block{Body: file.Body, Range: hcl.Range{Filename: "f.hcl", Start: hcl.Pos{Line: 99}}}, schema)
}

func lines(diags hcl.Diagnostics) []string {
	var out []string
	for _, d := range diags {
		out = append(out, fmt.Sprintf("%d %s; %s", d.Subject.Start.Line, d.Summary, d.Detail))
	}
	return out
}

func TestBlocksBecomeObjects(t *testing.T) {
	d := decodeText(t, `
bytes = 9007199254740993
tags  = { a = "b" }
single {}
item { port = 1 }
item {}
node "n1" { port = 2 }
`, nested())
	if len(d.diags) > 0 {
		t.Fatal(lines(d.diags))
	}
	want := `{"bytes":9007199254740993,"item":[{"port":1},{"port":8006}],"node":{"n1":{"port":2}},"single":{"port":8006},"tags":{"a":"b"}}`
	if got := string(d.json); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(decodeText(t, "", nested()).json); got != `{"item":[],"node":{},"single":{"port":8006}}` {
		t.Errorf("empty body is %s", got)
	}
}

// An absent single block has its defaults, unless something is missing then.
func TestDefaultsOfAbsentBlocks(t *testing.T) {
	number := func(name string, def any, required bool) plugin.Attribute {
		return plugin.Attribute{Name: name, Type: plugin.Number, Default: def, Required: required}
	}
	ids := plugin.Block{Attributes: []plugin.Attribute{
		number("first", json.RawMessage(`3000`), false), number("last", json.RawMessage(`3999`), false), number("step", nil, false),
	}}
	for name, c := range map[string]struct {
		block plugin.Block
		min   int64
		want  string
	}{
		"defaults":      {ids, 0, `{"b":{"first":3000,"last":3999}}`},
		"none":          {plugin.Block{Attributes: []plugin.Attribute{number("step", nil, false), number("null", json.RawMessage(`null`), false)}}, 0, `{}`},
		"required key":  {plugin.Block{Attributes: append([]plugin.Attribute{number("pool", nil, true)}, ids.Attributes...)}, 0, `{}`},
		"inside":        {plugin.Block{Blocks: []plugin.NestedBlock{{Name: "in", Nesting: plugin.NestingSingle, Block: ids}}}, 0, `{"b":{"in":{"first":3000,"last":3999}}}`},
		"required in":   {plugin.Block{Attributes: ids.Attributes, Blocks: []plugin.NestedBlock{{Name: "in", Nesting: plugin.NestingSingle, MinItems: 1}}}, 0, `{}`},
		"with a list":   {plugin.Block{Attributes: ids.Attributes, Blocks: []plugin.NestedBlock{{Name: "in", Nesting: plugin.NestingList}}}, 0, `{"b":{"first":3000,"in":[],"last":3999}}`},
		"none, a map":   {plugin.Block{Blocks: []plugin.NestedBlock{{Name: "in", Nesting: plugin.NestingMap}}}, 0, `{}`},
		"required self": {ids, 1, ""},
	} {
		d := decodeText(t, "", &plugin.Schema{Block: plugin.Block{Blocks: []plugin.NestedBlock{
			{Name: "b", Nesting: plugin.NestingSingle, MinItems: c.min, Block: c.block},
		}}})
		if string(d.json) != c.want || d.diags.HasErrors() != (c.want == "") {
			t.Errorf("%s: %s, want %s; %v", name, d.json, c.want, lines(d.diags))
		}
	}
	d := decodeText(t, "", &plugin.Schema{Block: plugin.Block{Blocks: []plugin.NestedBlock{{Name: "many", Nesting: plugin.NestingList, Block: ids}}}})
	if string(d.json) != `{"many":[]}` {
		t.Errorf("an absent list is %s", d.json)
	}
}

func TestPlacesInsideBlocks(t *testing.T) {
	d := decodeText(t, `
tags = {
  a = "b"
}
passwords = ["allowed-one",
  "not-allowed"]
item {
  port = 70000
}
node "n1" {
  old = true
}
node "n2" {}
node "n3" {}
`, nested())
	want := []string{
		`6 the value is not possible for "passwords"; possible are allowed-one`,
		`8 "port" is out of range; it must be at most 65535`,
		`10 3 blocks "node"; from 0 to 2 are allowed`,
		`11 "old" is deprecated; leave it out`,
	}
	if diff := cmp.Diff(want, lines(d.diags)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d.diags = nil
	d.remark([]plugin.Diagnostic{
		{Summary: "about not-allowed", Path: plugin.Path{plugin.Attr("tags"), plugin.Key("a")}},
		{Summary: "m", Path: plugin.Path{plugin.Attr("node"), plugin.Key("n2"), plugin.Attr("port")}},
		{Summary: "i", Path: plugin.Path{plugin.Attr("item"), plugin.Index(7)}},
		{Summary: "nowhere", Path: plugin.Path{plugin.Attr("ghost"), plugin.Index(-1)}},
		{Summary: "odd", Path: plugin.Path{plugin.Attr("passwords"), plugin.Index(-1), plugin.Key("")}},
		{Summary: "whole"},
	})
	want = []string{"3 about [REDACTED]; ", "13 m; ", "7 i; ", "99 nowhere; ", "5 odd; ", "99 whole; "}
	if diff := cmp.Diff(want, lines(d.diags)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An error of Decode is told at the attribute, also of one in a block.
func TestPlacesOfRemarks(t *testing.T) {
	d := decodeText(t, "\nsingle {\n\n  port = 1.5\n}\nitem {}\nitem {\n  port = 2.5\n}\nnode \"n\" {\n  port = 3.5\n}\n", nested())
	type node struct {
		Port int `json:"port"`
	}
	type rest struct {
		Single any `json:"single"`
		Item   any `json:"item"`
		Node   any `json:"node"`
	}
	for _, into := range []any{
		&struct {
			rest
			Single node `json:"single"`
		}{},
		&struct {
			rest
			Item []node `json:"item"`
		}{},
		&struct {
			rest
			Node map[string]node `json:"node"`
		}{},
	} {
		d.remark(plugin.Remarks(plugin.Decode(d.json, into)))
	}
	want := []string{
		`4 "single.port" must be a whole number; `, `8 "item.port" must be a whole number; `, `11 "node.port" must be a whole number; `,
	}
	if diff := cmp.Diff(want, lines(d.diags)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStrangersAtEveryDepth(t *testing.T) {
	for text, want := range map[string]string{
		"bites = 1\n":                       `1 unknown key "bites"; Did you mean "bytes"?`,
		"singel {}\n":                       `1 Unsupported block type; Blocks of type "singel" are not expected here. Did you mean "single"?`,
		"single {\n  prot = 1\n}\n":         `2 unknown key "prot"; Did you mean "port"?`,
		"item {}\nitem {\n  prot = 1\n}\n":  `3 unknown key "prot"; Did you mean "port"?`,
		"node \"a\" {\n\n  prot = 1\n}\n":   `3 unknown key "prot"; Did you mean "port"?`,
		"tags = {}\nbites = 1\nsingel {}\n": "2 and 3",
	} {
		got := lines(decodeText(t, text, nested()).diags)
		if want == "2 and 3" {
			if len(got) != 2 {
				t.Errorf("%q: %q", text, got)
			}
			continue
		}
		if diff := cmp.Diff([]string{want}, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestABrokenSchemaIsTold(t *testing.T) {
	for _, a := range []plugin.Attribute{
		{Name: "untyped"},
		{Name: "wrong", Type: plugin.Number, Default: json.RawMessage(`"x"`)},
	} {
		d := decodeText(t, "", &plugin.Schema{Block: plugin.Block{Attributes: []plugin.Attribute{a}}})
		if !d.diags.HasErrors() || !strings.Contains(d.diags[0].Detail, a.Name) {
			t.Errorf("%s: %v", a.Name, lines(d.diags))
		}
	}
	d := decodeText(t, "", &plugin.Schema{Block: plugin.Block{Blocks: []plugin.NestedBlock{{Name: "b", Nesting: "spiral"}}}})
	if !d.diags.HasErrors() {
		t.Error("unknown nesting was accepted")
	}
}

func TestDiagnosticsCarryNoValues(t *testing.T) {
	d := decodeText(t, `passwords = { a = "hunter2-hunter2" }`, nested())
	if !d.diags.HasErrors() {
		t.Fatal("accepted")
	}
	for _, one := range d.diags {
		if one.Expression != nil || one.EvalContext != nil || strings.Contains(one.Summary+one.Detail, "hunter2") {
			t.Errorf("%+v", one)
		}
	}
}

func TestChoicesInsideAMap(t *testing.T) {
	schema := &plugin.Schema{Block: plugin.Block{Attributes: []plugin.Attribute{
		{Name: "disks", Type: plugin.Map(plugin.String), OneOf: []string{"ssd", "hdd"}},
		{Name: "spec", Type: plugin.Object(map[string]plugin.Type{"kind": plugin.String}), OneOf: []string{"ssd"}},
	}}}
	d := decodeText(t, "disks = {\n  a = \"ssd\"\n  b = \"tape\"\n}\nspec = { kind = \"x\" }\n", schema)
	if diff := cmp.Diff([]string{`3 "tape" is not possible for "disks"; possible are ssd, hdd`}, lines(d.diags)); diff != "" {
		t.Error(diff)
	}
}
