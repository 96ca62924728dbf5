package conformance

import (
	"encoding/json"
	"regexp"
	"slices"

	"github.com/agentlab/agentlab/sdk/plugin"
)

var keyName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// checkBlock checks a published block as the host will use it.
func checkBlock(b plugin.Block, at string) error {
	names := map[string]bool{}
	for _, a := range b.Attributes {
		if err := checkName(a.Name, at, names); err != nil {
			return err
		}
		if err := checkAttribute(a, at+a.Name); err != nil {
			return err
		}
	}
	for _, n := range b.Blocks {
		if err := checkName(n.Name, at, names); err != nil {
			return err
		}
		switch {
		case n.Nesting == "":
			return saw("block %s has no nesting", at+n.Name).want("single, list or map")
		case n.MaxItems > 0 && n.MaxItems < n.MinItems:
			return saw("block %s may appear %d to %d times", at+n.Name, n.MinItems, n.MaxItems).want("a range")
		}
		if err := checkBlock(n.Block, at+n.Name+"."); err != nil {
			return err
		}
	}
	return nil
}

func checkName(name, at string, names map[string]bool) error {
	if !keyName.MatchString(name) || names[name] {
		return saw("a key %q", at+name).want("snake_case, and each name once")
	}
	names[name] = true
	return nil
}

func checkAttribute(a plugin.Attribute, at string) error {
	var kind any
	if err := json.Unmarshal(a.Type.JSON(), &kind); err != nil || !isType(kind) {
		return saw("attribute %s has type %s", at, a.Type.JSON()).want("a type of cty as JSON, such as \"string\" or [\"list\",\"string\"]")
	}
	if a.Description == "" {
		return saw("attribute %s has no description", at).want("what it is for")
	}
	if a.Min != nil && a.Max != nil && *a.Min > *a.Max {
		return saw("attribute %s is from %g to %g", at, *a.Min, *a.Max).want("a range")
	}
	for what, raw := range map[string]any{"default": a.Default, "example": a.Example} {
		text, ok := raw.(json.RawMessage)
		if !ok {
			continue
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil || !fitsType(value, kind) {
			return saw("the %s of %s does not fit its type %s", what, at, a.Type.JSON()).want("a value of that type as JSON")
		}
		if s, ok := value.(string); ok && len(a.OneOf) > 0 && !slices.Contains(a.OneOf, s) {
			return saw("the %s of %s is none of %q", what, at, a.OneOf).want("one of them")
		}
		if n, ok := value.(float64); ok && (a.Min != nil && n < *a.Min || a.Max != nil && n > *a.Max) {
			return saw("the %s of %s is %g", what, at, n).want("a number between its bounds")
		}
	}
	return nil
}

// isType tells whether v is the JSON form of a type.
func isType(v any) bool {
	switch v := v.(type) {
	case string:
		return slices.Contains([]string{"string", "number", "bool", "dynamic"}, v)
	case []any:
		if len(v) < 2 {
			return false
		}
		switch v[0] {
		case "list", "set", "map":
			return len(v) == 2 && isType(v[1])
		case "tuple":
			list, ok := v[1].([]any)
			return ok && !slices.ContainsFunc(list, func(t any) bool { return !isType(t) })
		case "object":
			fields, ok := v[1].(map[string]any)
			for _, t := range fields {
				ok = ok && isType(t)
			}
			return ok
		}
	}
	return false
}

// fitsType tells whether a value is of a type; what the contract has no words
// for is left to the host.
func fitsType(value, kind any) bool {
	if value == nil {
		return true
	}
	switch kind := kind.(type) {
	case string:
		switch value.(type) {
		case string:
			return kind == "string" || kind == "dynamic"
		case float64, json.Number:
			return kind == "number" || kind == "dynamic"
		case bool:
			return kind == "bool" || kind == "dynamic"
		}
		return kind == "dynamic"
	case []any:
		switch items := value.(type) {
		case []any:
			return kind[0] == "tuple" || (kind[0] == "list" || kind[0] == "set") &&
				!slices.ContainsFunc(items, func(v any) bool { return !fitsType(v, kind[1]) })
		case map[string]any:
			return kind[0] == "map" || kind[0] == "object"
		}
	}
	return false
}
