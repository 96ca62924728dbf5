package plugin

import (
	"encoding/json"
	"fmt"

	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
)

// Schema tells what a plugin's config block may hold. The host reads it before
// it starts the plugin in earnest, decodes the block by it and fills in
// defaults, also those of an absent single block, so a plugin sees only what fits.
type Schema struct {
	Version int64 // of the configuration's format, from 1
	Block   Block
}

// Block is the body of the configuration, or of a block inside it.
type Block struct {
	Attributes  []Attribute
	Blocks      []NestedBlock
	Description string // markdown
}

// Attribute is one key of a block.
type Attribute struct {
	Name        string // snake_case
	Type        Type
	Required    bool
	Sensitive   bool     // never shown, also not in diagnostics
	Default     any      // marshalled as JSON; nil: absent stays absent
	OneOf       []string // of a string, or of each element of a list or map
	Min, Max    *float64 // of a number, inclusive; see Limit
	Description string   // markdown
	Example     any
	Deprecation string // what to write instead
}

// Limit gives a bound for Attribute.Min and Max.
func Limit(n float64) *float64 { return &n }

// Nesting says how often a block may appear and what it becomes in JSON.
type Nesting string

// A single block becomes an object, a list an array of objects in the order of
// the file, a map an object of objects by label.
const (
	NestingSingle Nesting = "single"
	NestingList   Nesting = "list"
	NestingMap    Nesting = "map"
)

// NestedBlock is a kind of block inside a block. An absent single block that may
// be absent and needs nothing has the defaults inside it.
type NestedBlock struct {
	Name     string
	Nesting  Nesting
	Label    string // name of the label, for NestingMap only
	MinItems int64
	MaxItems int64 // 0: any number
	Block    Block
}

// Absent is what the host sends where there is no such block, ready for JSON: an empty
// list or object for blocks of which there may be many, an object with the defaults
// for a single one, and nil, for nothing at all, where one is required, or where a
// single one has no default or requires something.
func (n NestedBlock) Absent() any {
	switch {
	case n.MinItems > 0:
		return nil
	case n.Nesting == NestingList:
		return []any{}
	case n.Nesting == NestingMap:
		return map[string]any{}
	}
	if defaults := n.Block.defaults(); defaults != nil {
		return defaults
	}
	return nil
}

func (b Block) defaults() map[string]any {
	out, some := map[string]any{}, false
	for _, a := range b.Attributes {
		if a.Required {
			return nil
		}
		if raw, err := json.Marshal(a.Default); err == nil && string(raw) != "null" {
			out[a.Name], some = json.RawMessage(raw), true
		}
	}
	for _, n := range b.Blocks {
		if n.MinItems > 0 {
			return nil
		}
		if absent := n.Absent(); absent != nil {
			out[n.Name], some = absent, some || n.Nesting == NestingSingle
		}
	}
	if !some {
		return nil
	}
	return out
}

// Type is the type of an attribute. Its JSON form is that of cty.
type Type struct{ json string }

// The primitive types.
var (
	String = Type{`"string"`}
	Number = Type{`"number"`}
	Bool   = Type{`"bool"`}
)

// List is a list of elements of one type.
func List(element Type) Type { return Type{`["list",` + element.json + `]`} }

// Map is a map from strings to elements of one type.
func Map(element Type) Type { return Type{`["map",` + element.json + `]`} }

// Object has exactly these attributes.
func Object(attributes map[string]Type) Type {
	raw := map[string]json.RawMessage{}
	for name, t := range attributes {
		raw[name] = json.RawMessage(t.json)
	}
	b, err := json.Marshal(raw)
	if err != nil { // only a zero Type inside does this
		panic(fmt.Sprintf("plugin: object type: %v", err))
	}
	return Type{`["object",` + string(b) + `]`}
}

// JSON is the cty form: "string", ["list","string"], ["object",{…}].
func (t Type) JSON() []byte { return []byte(t.json) }

var nestings = map[Nesting]pluginv1.NestedBlock_Nesting{
	NestingSingle: pluginv1.NestedBlock_NESTING_SINGLE,
	NestingList:   pluginv1.NestedBlock_NESTING_LIST,
	NestingMap:    pluginv1.NestedBlock_NESTING_MAP,
}

func schemaToWire(s *Schema) (*pluginv1.Schema, error) {
	if s == nil {
		return &pluginv1.Schema{Version: 1, Block: &pluginv1.Block{}}, nil
	}
	b, err := blockToWire(s.Block)
	if err != nil {
		return nil, err
	}
	return &pluginv1.Schema{Version: s.Version, Block: b}, nil
}

func blockToWire(b Block) (*pluginv1.Block, error) {
	out := &pluginv1.Block{Description: b.Description}
	for _, a := range b.Attributes {
		if a.Type.json == "" {
			return nil, fmt.Errorf("attribute %q has no type", a.Name)
		}
		w := &pluginv1.Attribute{
			Name: a.Name, Type: a.Type.JSON(), Required: a.Required, Sensitive: a.Sensitive,
			OneOf: a.OneOf, Min: a.Min, Max: a.Max, Description: a.Description, Deprecation: a.Deprecation,
		}
		var err error
		if w.DefaultJson, err = marshalOptional(a.Default); err != nil {
			return nil, fmt.Errorf("default of %q: %w", a.Name, err)
		}
		if w.ExampleJson, err = marshalOptional(a.Example); err != nil {
			return nil, fmt.Errorf("example of %q: %w", a.Name, err)
		}
		out.Attributes = append(out.Attributes, w)
	}
	for _, n := range b.Blocks {
		inner, err := blockToWire(n.Block)
		if err != nil {
			return nil, fmt.Errorf("block %q: %w", n.Name, err)
		}
		w := &pluginv1.NestedBlock{
			TypeName: n.Name, Nesting: nestings[n.Nesting], MinItems: n.MinItems, MaxItems: n.MaxItems, Block: inner,
		}
		if n.Label != "" {
			w.Labels = []string{n.Label}
		}
		out.Blocks = append(out.Blocks, w)
	}
	return out, nil
}

func marshalOptional(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

func schemaFromWire(s *pluginv1.Schema) *Schema {
	return &Schema{Version: s.GetVersion(), Block: blockFromWire(s.GetBlock())}
}

func blockFromWire(b *pluginv1.Block) Block {
	out := Block{Description: b.GetDescription()}
	for _, w := range b.GetAttributes() {
		a := Attribute{
			Name: w.GetName(), Type: Type{string(w.GetType())}, Required: w.GetRequired(), Sensitive: w.GetSensitive(),
			OneOf: w.GetOneOf(), Description: w.GetDescription(), Deprecation: w.GetDeprecation(),
		}
		if w != nil {
			a.Min, a.Max = w.Min, w.Max
		}
		if len(w.GetDefaultJson()) > 0 {
			a.Default = json.RawMessage(w.GetDefaultJson())
		}
		if len(w.GetExampleJson()) > 0 {
			a.Example = json.RawMessage(w.GetExampleJson())
		}
		out.Attributes = append(out.Attributes, a)
	}
	for _, w := range b.GetBlocks() {
		n := NestedBlock{
			Name: w.GetTypeName(), MinItems: w.GetMinItems(), MaxItems: w.GetMaxItems(), Block: blockFromWire(w.GetBlock()),
		}
		for nesting, wire := range nestings {
			if wire == w.GetNesting() {
				n.Nesting = nesting
			}
		}
		if labels := w.GetLabels(); len(labels) > 0 {
			n.Label = labels[0]
		}
		out.Blocks = append(out.Blocks, n)
	}
	return out
}
