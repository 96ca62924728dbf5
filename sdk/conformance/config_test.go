package conformance

import (
	"encoding/json"
	"testing"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// A configuration is completed as the host does it, also what is absent as a whole.
func TestDefaultsOfAbsentBlocks(t *testing.T) {
	schema := func(required bool, least int64) plugin.Block {
		return plugin.Block{Blocks: []plugin.NestedBlock{{Name: "vmids", Nesting: plugin.NestingSingle, MinItems: least, Block: plugin.Block{
			Attributes: []plugin.Attribute{
				{Name: "first", Type: plugin.Number, Default: json.RawMessage(`3000`)},
				{Name: "pool", Type: plugin.String, Required: required},
			},
		}}}}
	}
	for _, c := range []struct {
		required bool
		least    int64
		in, want string
		wrong    int
	}{
		{false, 0, `{}`, `{"vmids":{"first":3000}}`, 0},
		{false, 0, `{"vmids":null}`, `{"vmids":{"first":3000}}`, 0},
		{false, 0, `{"vmids":{}}`, `{"vmids":{"first":3000}}`, 0},
		{true, 0, `{}`, `{}`, 0},
		{false, 1, `{}`, `{}`, 1},
	} {
		fields := map[string]any{}
		if err := json.Unmarshal([]byte(c.in), &fields); err != nil {
			t.Fatal(err)
		}
		wrong := complete(schema(c.required, c.least), fields, "")
		if got, err := json.Marshal(fields); err != nil || string(got) != c.want || len(wrong) != c.wrong {
			t.Errorf("%+v: %s, %v, %q", c, got, err, wrong)
		}
	}
}
