package pluginhost

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// specOf turns a published block into what hcldec decodes by. An error means
// that the plugin's schema itself is broken.
func specOf(b plugin.Block) (hcldec.ObjectSpec, error) {
	out := hcldec.ObjectSpec{}
	for _, a := range b.Attributes {
		t, err := ctyjson.UnmarshalType(a.Type.JSON())
		if err != nil {
			return nil, fmt.Errorf("type of %q: %w", a.Name, err)
		}
		if def, ok := a.Default.(json.RawMessage); ok {
			if _, err := ctyjson.Unmarshal(def, t); err != nil {
				return nil, fmt.Errorf("default of %q: %w", a.Name, err)
			}
		}
		out[a.Name] = &hcldec.AttrSpec{Name: a.Name, Type: t, Required: a.Required}
	}
	for _, n := range b.Blocks {
		nested, err := specOf(n.Block)
		if err != nil {
			return nil, fmt.Errorf("block %q: %w", n.Name, err)
		}
		switch n.Nesting {
		case plugin.NestingSingle:
			out[n.Name] = &hcldec.BlockSpec{TypeName: n.Name, Nested: nested, Required: n.MinItems > 0}
		case plugin.NestingList:
			out[n.Name] = &hcldec.BlockTupleSpec{
				TypeName: n.Name, Nested: nested, MinItems: int(n.MinItems), MaxItems: int(n.MaxItems),
			}
		case plugin.NestingMap:
			out[n.Name] = &hcldec.BlockObjectSpec{TypeName: n.Name, LabelNames: labels(n), Nested: nested}
		default:
			return nil, fmt.Errorf("block %q has no nesting", n.Name)
		}
	}
	return out, nil
}

func labels(n plugin.NestedBlock) []string {
	if n.Nesting != plugin.NestingMap {
		return nil
	}
	if n.Label == "" {
		return []string{"name"}
	}
	return []string{n.Label}
}

// bodySchema is the same for reading places only.
func bodySchema(b plugin.Block) *hcl.BodySchema {
	out := &hcl.BodySchema{}
	for _, a := range b.Attributes {
		out.Attributes = append(out.Attributes, hcl.AttributeSchema{Name: a.Name})
	}
	for _, n := range b.Blocks {
		out.Blocks = append(out.Blocks, hcl.BlockHeaderSchema{Type: n.Name, LabelNames: labels(n)})
	}
	return out
}

// locate finds the place of a value, or of the nearest thing around it.
func locate(body hcl.Body, b plugin.Block, path plugin.Path, around hcl.Range) hcl.Range {
	if len(path) == 0 || body == nil {
		return around
	}
	name, ok := path[0].(plugin.Attr)
	if !ok {
		return around
	}
	content, _, _ := body.PartialContent(bodySchema(b))
	if content == nil {
		return around
	}
	if attr := content.Attributes[string(name)]; attr != nil {
		return locateIn(attr.Expr, path[1:])
	}
	for _, n := range b.Blocks {
		if n.Name != string(name) {
			continue
		}
		if block, rest := pick(content.Blocks.OfType(n.Name), n.Nesting, path[1:]); block != nil {
			return locate(block.Body, n.Block, rest, block.DefRange)
		}
	}
	return around
}

// pick chooses among the blocks of one type as the path says.
func pick(blocks hcl.Blocks, nesting plugin.Nesting, path plugin.Path) (*hcl.Block, plugin.Path) {
	if len(blocks) == 0 {
		return nil, nil
	}
	if nesting == plugin.NestingSingle || len(path) == 0 {
		return blocks[0], path
	}
	switch step := path[0].(type) {
	case plugin.Index:
		if step >= 0 && int(step) < len(blocks) {
			return blocks[step], path[1:]
		}
	case plugin.Key:
		for _, block := range blocks {
			if len(block.Labels) > 0 && block.Labels[0] == string(step) {
				return block, path[1:]
			}
		}
	}
	return blocks[0], nil
}

// locateIn goes into the expression of a list, map or object.
func locateIn(expr hcl.Expression, path plugin.Path) hcl.Range {
	if len(path) == 0 {
		return expr.Range()
	}
	key := ""
	switch step := path[0].(type) {
	case plugin.Index:
		if list, diags := hcl.ExprList(expr); !diags.HasErrors() && step >= 0 && int(step) < len(list) {
			return locateIn(list[step], path[1:])
		}
		return expr.Range()
	case plugin.Key:
		key = string(step)
	case plugin.Attr:
		key = string(step)
	}
	pairs, diags := hcl.ExprMap(expr)
	if diags.HasErrors() {
		return expr.Range()
	}
	for _, pair := range pairs {
		v, diags := pair.Key.Value(nil)
		if !diags.HasErrors() && v.IsWhollyKnown() && !v.IsNull() && v.Type().FriendlyName() == "string" && v.AsString() == key {
			return locateIn(pair.Value, path[1:])
		}
	}
	return expr.Range()
}
