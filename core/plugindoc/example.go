package plugindoc

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Example gives a block for the plugin, of each kind that it serves: what is
// required is set, all else is commented out. What is deprecated is left out.
func Example(asked launch.Asked) (string, error) {
	config, err := body(asked.Schema.Block, "    ")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for i, kind := range asked.Info.Kinds {
		if i > 0 {
			out.WriteString("\n# or\n")
		}
		fmt.Fprintf(&out, "plugin %q %q {", kind, asked.Info.Name)
		if len(config) > 0 {
			fmt.Fprintf(&out, "\n  config {\n%s  }\n", strings.Join(config, ""))
		}
		out.WriteString("}\n")
	}
	return out.String(), nil
}

// body gives the lines of a block.
func body(b plugin.Block, indent string) ([]string, error) {
	var out []string
	space := func() {
		if len(out) > 0 {
			out = append(out, "\n")
		}
	}
	for _, a := range b.Attributes {
		if a.Deprecation != "" {
			continue
		}
		space()
		for _, line := range wrap(a.Description) {
			out = append(out, indent+"# "+line+"\n")
		}
		text, err := valueText(a)
		if err != nil {
			return nil, fault.New(fault.Invalid, "attribute %q of the schema: %w", a.Name, err)
		}
		line := a.Name + " = " + text
		if !a.Required {
			line = comment(line)
		}
		out = append(out, indented(indent, line))
	}
	for _, n := range b.Blocks {
		space()
		inner, err := body(n.Block, "  ")
		if err != nil {
			return nil, err
		}
		text := head(n) + " {\n" + strings.Join(inner, "") + "}"
		if n.MinItems == 0 {
			text = comment(text)
		}
		for range max(n.MinItems, 1) {
			out = append(out, indented(indent, text))
			if n.Nesting == plugin.NestingMap {
				break // a second one needs another label
			}
		}
	}
	return out, nil
}

func comment(text string) string { return "# " + strings.ReplaceAll(text, "\n", "\n# ") }

// indented puts blanks before each line that is not empty.
func indented(indent, text string) string {
	var out strings.Builder
	for line := range strings.Lines(text + "\n") {
		if line != "\n" {
			out.WriteString(indent)
		}
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return out.String()
}

// wrap breaks a description into lines of comments.
func wrap(text string) []string {
	const width = 72
	var out []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			out, line = append(out, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}

// valueText is an example of the value, its default, or something of its type. A
// secret is never shown.
func valueText(a plugin.Attribute) (string, error) {
	t, err := ctyjson.UnmarshalType(a.Type.JSON())
	if err != nil {
		return "", err
	}
	v := something(a, t)
	for _, c := range []any{a.Example, a.Default} {
		raw, ok := c.(json.RawMessage)
		if !ok || a.Sensitive {
			continue
		}
		known, err := ctyjson.Unmarshal(raw, t)
		if err != nil {
			return "", err
		}
		if !known.IsNull() {
			v = known
			break
		}
	}
	return string(hclwrite.TokensForValue(v).Bytes()), nil
}

// something fits the type.
func something(a plugin.Attribute, t cty.Type) cty.Value {
	switch {
	case t == cty.String && len(a.OneOf) > 0:
		return cty.StringVal(a.OneOf[0])
	case t == cty.String:
		return cty.StringVal("…")
	case t == cty.Number && a.Min != nil:
		return cty.NumberFloatVal(*a.Min)
	case t == cty.Number && a.Max != nil:
		return cty.NumberFloatVal(*a.Max)
	case t == cty.Number:
		return cty.NumberIntVal(1)
	case t == cty.Bool:
		return cty.False
	case t.IsListType() || t.IsSetType():
		return cty.ListVal([]cty.Value{something(a, t.ElementType())})
	case t.IsMapType():
		return cty.MapVal(map[string]cty.Value{"name": something(a, t.ElementType())})
	case t.IsObjectType():
		fields := map[string]cty.Value{}
		for name, ft := range t.AttributeTypes() {
			fields[name] = something(plugin.Attribute{}, ft)
		}
		return cty.ObjectVal(fields)
	}
	return cty.NullVal(t)
}
