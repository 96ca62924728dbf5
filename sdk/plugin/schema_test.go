package plugin_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

func TestSchemaCrosses(t *testing.T) {
	schema := func(def, example any) *plugin.Schema {
		return &plugin.Schema{Version: 3, Block: plugin.Block{
			Description: "All of it.",
			Attributes: []plugin.Attribute{{
				Name: "size", Type: plugin.Number, Required: true, Sensitive: true, Default: def, OneOf: []string{"a"},
				Min: plugin.Limit(0), Max: plugin.Limit(9.5), Description: "d", Example: example, Deprecation: "use more",
			}, {
				Name: "servers", Type: plugin.List(plugin.Map(plugin.Object(map[string]plugin.Type{"b": plugin.Bool, "a": plugin.String}))),
			}},
			Blocks: []plugin.NestedBlock{
				{Name: "one", Nesting: plugin.NestingSingle, MinItems: 1, MaxItems: 1, Block: plugin.Block{
					Attributes: []plugin.Attribute{{Name: "x", Type: plugin.String}},
				}},
				{Name: "many", Nesting: plugin.NestingList, MaxItems: 4},
				{Name: "named", Nesting: plugin.NestingMap, Label: "node"},
			},
		}}
	}
	f := serve(t, func(p *plugin.Plugin) { p.Schema = schema(7, 8) })
	got, err := f.base.Schema(t.Context())
	want := schema(json.RawMessage("7"), json.RawMessage("8"))
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b plugin.Type) bool { return string(a.JSON()) == string(b.JSON()) })); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if text := string(got.Block.Attributes[1].Type.JSON()); text != `["list",["map",["object",{"a":"string","b":"bool"}]]]` {
		t.Errorf("type %s", text)
	}
	if empty, err := serve(t, nil).base.Schema(t.Context()); err != nil || len(empty.Block.Attributes) > 0 {
		t.Errorf("no schema: %+v, %v", empty, err)
	}
}

func TestDecodeIsStrict(t *testing.T) {
	type config struct {
		Port int `json:"port"`
	}
	tests := []struct{ in, want string }{
		{`{"port":1}`, ""},
		{`{}`, ""},
		{`{"port":1,"prot":2}`, "prot"},
		{`{"port":"hunter2"}`, `"port" must be a whole number`},
		{`{"port":1.5}`, `"port" must be a whole number`},
		{`{"port":1} {}`, "after its end"},
		{`{"port":1`, "unexpected EOF"},
		{`hunter2`, "not JSON"},
	}
	for _, tt := range tests {
		var c config
		err := plugin.Decode([]byte(tt.in), &c)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.in, err)
			}
			continue
		}
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %q", tt.in, err, tt.want)
		}
		var place plugin.Path
		if strings.Contains(tt.want, `"port"`) {
			place = plugin.Path{plugin.Attr("port")}
		}
		if r := plugin.Remarks(err); len(r) != 1 || !strings.Contains(r[0].Summary, tt.want) || !cmp.Equal(place, r[0].Path) {
			t.Errorf("%s: remarks %+v, want one about %v", tt.in, r, place)
		}
	}
}

// A remark leads to the value that does not fit, wherever it is.
func TestPlacesOfRemarks(t *testing.T) {
	type ids struct {
		First int   `json:"first"`
		Sizes []int `json:"sizes"`
	}
	type config struct {
		IDs   ids            `json:"ids"`
		List  []ids          `json:"list"`
		Nodes map[string]ids `json:"nodes"`
	}
	for in, want := range map[string]plugin.Path{
		`{"ids":{"first":1.5}}`:                            {plugin.Attr("ids"), plugin.Attr("first")},
		`{"ids":[]}`:                                       {plugin.Attr("ids")},
		`{"ids":{"first":{"first":1}}}`:                    {plugin.Attr("ids"), plugin.Attr("first")},
		`{"ids":{"first":1,"sizes":[1,2.5]}}`:              {plugin.Attr("ids"), plugin.Attr("sizes"), plugin.Index(1)},
		`{"list":[{},{"first":"x"}]}`:                      {plugin.Attr("list"), plugin.Index(1), plugin.Attr("first")},
		`{"nodes":{"a":{"first":1}, "b" : {"first":1.5}}}`: {plugin.Attr("nodes"), plugin.Key("b"), plugin.Attr("first")},
		`7`: nil,
	} {
		var c config
		r := plugin.Remarks(plugin.Decode([]byte(in), &c))
		if len(r) != 1 || !cmp.Equal(want, r[0].Path) {
			t.Errorf("%s: %+v, want %v", in, r, want)
		}
	}
}

func TestNotOf(t *testing.T) {
	for want, kinds := range map[string][]plugin.Kind{
		"is a hypervisor plugin, not a network plugin":            {plugin.Hypervisor},
		"is an exposure and secrets plugin, not a network plugin": {plugin.Exposure, plugin.Secrets},
		"is no network plugin":                                    nil,
	} {
		if got := plugin.Network.NotOf(kinds); got != want {
			t.Errorf("%v: %s, want %s", kinds, got, want)
		}
	}
}
