package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// errUnfit is a configuration that a host would not send.
var errUnfit = errors.New("the plugin's configuration does not fit its schema")

// whole is the configuration as a host would send it: by the schema, with
// defaults filled in.
func (b Binary) whole(ctx context.Context, base plugin.Base) (json.RawMessage, error) {
	schema, err := base.Schema(ctx)
	if err != nil {
		return nil, fmt.Errorf("get schema: %w", err)
	}
	fields := map[string]any{}
	if len(b.Config) > 0 {
		dec := json.NewDecoder(bytes.NewReader(b.Config))
		dec.UseNumber() // sizes in bytes do not fit a float
		if err := dec.Decode(&fields); err != nil {
			return nil, fault.New(fault.Invalid, "the plugin's configuration is not a JSON object")
		}
	}
	if wrong := complete(schema.Block, fields, ""); len(wrong) > 0 {
		return nil, fault.New(fault.Invalid, "%w: %s", errUnfit, strings.Join(wrong, "; ")).
			WithHint("give a JSON object with what the plugin's config block would hold (--config FILE); what is absent has its default")
	}
	return json.Marshal(fields)
}

// complete fills in defaults, leaves out what is null, and tells what a host would
// refuse.
func complete(b plugin.Block, fields map[string]any, at string) (wrong []string) {
	for _, a := range b.Attributes {
		if value := fields[a.Name]; value != nil {
			wrong = append(wrong, unfit(a, value, at+a.Name)...)
			continue
		}
		delete(fields, a.Name)
		switch def, ok := a.Default.(json.RawMessage); {
		case ok && string(def) != "null":
			fields[a.Name] = def
		case a.Required:
			wrong = append(wrong, at+a.Name+" is required")
		}
	}
	for _, n := range b.Blocks {
		wrong = append(wrong, completeNested(n, fields, at+n.Name)...)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !known(b, name) {
			wrong = append(wrong, "there is no key "+at+name)
		}
	}
	return wrong
}

func known(b plugin.Block, name string) bool {
	return slices.ContainsFunc(b.Attributes, func(a plugin.Attribute) bool { return a.Name == name }) ||
		slices.ContainsFunc(b.Blocks, func(n plugin.NestedBlock) bool { return n.Name == name })
}

// unfit tells what is wrong with a value, or with what it consists of.
func unfit(a plugin.Attribute, value any, at string) (wrong []string) {
	var kind any
	if err := json.Unmarshal(a.Type.JSON(), &kind); err == nil && !fitsType(value, kind) {
		return []string{fmt.Sprintf("%s is no %s", at, a.Type.JSON())}
	}
	switch value := value.(type) {
	case string:
		if len(a.OneOf) > 0 && !slices.Contains(a.OneOf, value) {
			wrong = append(wrong, fmt.Sprintf("%s is none of %s", at, strings.Join(a.OneOf, ", ")))
		}
	case json.Number:
		switch n, _ := value.Float64(); {
		case a.Min != nil && n < *a.Min:
			wrong = append(wrong, fmt.Sprintf("%s: %s is below %v", at, value, *a.Min))
		case a.Max != nil && n > *a.Max:
			wrong = append(wrong, fmt.Sprintf("%s: %s is above %v", at, value, *a.Max))
		}
	case []any:
		a.Type = plugin.Type{} // said of the whole
		for i, item := range value {
			wrong = append(wrong, unfit(a, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	}
	return wrong
}

func completeNested(n plugin.NestedBlock, fields map[string]any, at string) (wrong []string) {
	inner := func(value any, at string) {
		if object, ok := value.(map[string]any); ok {
			wrong = append(wrong, complete(n.Block, object, at+".")...)
		}
	}
	switch value := fields[n.Name].(type) {
	case nil:
		delete(fields, n.Name)
		if n.MinItems > 0 {
			wrong = append(wrong, at+" is required")
		} else if absent := n.Absent(); absent != nil {
			fields[n.Name] = absent
		}
	case []any:
		for i, item := range value {
			inner(item, fmt.Sprintf("%s[%d]", at, i))
		}
	case map[string]any:
		if n.Nesting == plugin.NestingSingle {
			inner(value, at)
			break
		}
		for key, item := range value {
			inner(item, at+"."+key)
		}
	}
	return wrong
}
